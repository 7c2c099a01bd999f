"""The Dockerfile scanner refuses every ADD that the engine would fetch, in any notation."""

from __future__ import annotations

import pytest

from services.builds.dockerfile import DockerfileError, check_adds, instructions

URL = "http://127.0.0.1:8080/secret"
REMOTE = {
    "literal": f"ADD {URL} /",
    "lower case": f"add {URL} /",
    "upper case scheme": "ADD HTTP://127.0.0.1/ /",
    "https": "ADD https://example.org/x /",
    "leading blanks": f"  \t ADD\t{URL}\t/",
    "no-break space before": f"\u00a0ADD {URL} /",
    "second source": f"ADD a.txt {URL} b.txt /",
    "flags": f"ADD --chown=1:1 --chmod=600 {URL} /",
    "flag with blanks": f'ADD --chown="a b" {URL} /',
    "double quotes": 'ADD "http"://127.0.0.1/ /',
    "single quotes": "ADD ht'tp:'//127.0.0.1/ /",
    "escaped letter": "ADD h\\ttp://127.0.0.1/ /",
    "JSON array": f'ADD ["{URL}", "/"]',
    "JSON array of three": f'ADD ["a", "{URL}","/"]',
    "JSON array with flags": f'ADD --chown=1 ["{URL}","/"]',
    "JSON array with more after it": f'ADD ["{URL}", "/"] more words',
    "JSON solidus": 'ADD ["http:\\/\\/127.0.0.1", "/"]',
    "JSON escape": 'ADD ["\\u0068ttp://127.0.0.1", "/"]',
    "JSON quoted twice": f'ADD ["\\"{URL}\\"", "/"]',
    "JSON variable": 'ADD ["$URL", "/"]',
    "JSON variable in the second place": 'ADD ["a","${URL}", "/x y"]',
    "variable": "ADD $URL /",
    "braces": "ADD ${URL} /",
    "default": f"ADD ${{URL:-{URL}}} /",
    "local default": "ADD ${URL:-./a} /",
    "part of the scheme": "ADD ht${REST} /",
    "scheme with a variable host": "ADD http://$HOST/ /",
    "variable after quotes": 'ADD ""$URL /',
    "two variables": "ADD $A$B /",
    "continuation": f"ADD \\\n  {URL} /",
    "continuation with blanks after it": f"ADD \\  \t\n  {URL} /",
    "continuation with CRLF": f"ADD \\\r\n  {URL} /\r\n",
    "continued keyword": f"A\\\nDD {URL} /",
    "continued scheme": "ADD ht\\\ntp://127.0.0.1/ /",
    "comment between": f"ADD \\\n# a comment\n  # one more\n\n {URL} /",
    "comment that ends in an escape": f"# a comment \\\nADD {URL} /",
    "lone escape before": f"\\\nADD {URL} /",
    "escape directive": f"# escape=`\nADD `\n {URL} /",
    "escape directive, blanks": f"  #  ESCAPE = `  \nADD `\n {URL} /",
    "backslash is no continuation": f"# escape=`\nRUN dir c:\\\nADD {URL} /",
    "syntax directive": f"# syntax=docker/dockerfile:1\nADD {URL} /",
    "byte order mark": f"\ufeffADD {URL} /",
    "byte order mark and directive": f"\ufeff# escape=`\nADD `\n{URL} /",
    "byte order mark before a source": f"ADD \ufeff{URL} /",
    "byte order mark before a variable": "ADD \ufeff${URL} /",
    "odd character before a source": f"ADD \u200b{URL} /",
    "odd character before a variable": "ADD \u200b${URL} /",
    "odd character before git": "ADD \u200bgit@github.com:a/b /",
    "here-document before": f"RUN <<EOF\necho\nEOF\nADD {URL} /",
    "here-document whose end looks continued": f"RUN <<'EOF\\'\necho\nEOF\\\nADD {URL} /",
    "here-document beside": f"ADD <<EOF {URL} /\nx\nEOF",
    "doubled escape": f"RUN echo \\\\\nADD {URL} /",
    "ONBUILD": f"ONBUILD ADD {URL} /",
    "onbuild in lower case": f"onbuild   add {URL} /",
    "ONBUILD with a dotted I": f"ONBU\u0130LD ADD {URL} /",
    "ONBUILD continued": "ONBUILD \\\n ADD \\\n $URL /",
    "scp": "ADD git@github.com:a/b.git /",
    "git": "ADD git://github.com/a/b /",
    "ssh": "ADD ssh://git@github.com/a/b /",
    "ftp": "ADD ftp://127.0.0.1/a /",
    "very long line": f"ADD {' ' * 70_000}{URL} /",
    "invalid UTF-8": f"# \udcff\nADD {URL} /",
    "at the end": f"ADD {URL} /x \\",
}  # fmt: skip


@pytest.mark.parametrize("text", REMOTE.values(), ids=REMOTE)
def test_add_instruction_with_remote_source_is_refused(text: str) -> None:
    with pytest.raises(DockerfileError, match=r"^line \d+: ADD "):
        check_adds(f"{text}\nRUN true\n")


LOCAL = {
    "file": "ADD a.txt /",
    "several": "ADD a b/c ./d /dest/",
    "glob": "ADD [a-z]*.txt target/*.jar /",
    "JSON": 'ADD ["a b", "c", "/d"]',
    "variable destination": "ADD a.tar.gz $HOME/",
    "JSON, variable destination": 'ADD ["a", "${HOME}"]',
    "variable within": "ADD target/$JAR app-${VERSION}.jar ./$OTHER /",
    "flag with a variable": "ADD --chown=$UID:$GID a /",
    "COPY": "COPY $JAR https://example.org /",
    "RUN": f"RUN curl {URL} && apk add {URL}",
    "RUN continued": f"RUN curl \\\n  {URL} \\\n  && apk add x",
    "comment": f"# ADD {URL} /\nADD \\\n  # {URL} $URL\n a /",
    "word that begins alike": f"ADDRESS {URL} /",
    "ENV": f"ENV ADD {URL}",
}


@pytest.mark.parametrize("text", LOCAL.values(), ids=LOCAL)
def test_add_instruction_with_context_source_is_accepted(text: str) -> None:
    check_adds(f"FROM scratch\n{text}\nRUN true\n")


def test_refused_add_is_reported_with_line_and_fix() -> None:
    with pytest.raises(DockerfileError) as refused:
        check_adds(f"FROM debian\n\nRUN true \\\n  more\nADD \\\n  {URL} /\n")
    assert refused.value.line == 5
    assert "RUN curl" in str(refused.value) and "COPY" in str(refused.value) and URL in str(refused.value)
    with pytest.raises(DockerfileError, match=r"line 1: .*write \./\$JAR"):
        check_adds("ADD $JAR /")


@pytest.mark.parametrize(
    "text",
    ["RUN a\nRUN \x00b", "ADD \\\n\x1c# http://x http://y /", "# syntax=x\n# escape=`\nRUN a", "# escape=x\nRUN a"],
    ids=["NUL", "file separator", "directive on line 2", "unknown escape"],
)
def test_text_that_engines_read_differently_is_refused(text: str) -> None:
    with pytest.raises(DockerfileError):
        check_adds(text)


def test_escape_directive_after_first_instruction_is_comment() -> None:
    check_adds("FROM scratch\n# escape=`\nRUN a `\n")


def test_continued_lines_are_one_instruction_with_line_numbers() -> None:
    first, second = instructions("\n# c\nRUN a \\\n\n # c\n  b\nCMD c\n")
    assert (first.text, first.first, first.last) == ("RUN a   b", 3, 6)
    assert (second.text, second.starts) == ("CMD c", ((7, 0),))


@pytest.mark.parametrize("line", ["ADD\\\n", "   \\\n", "onbuild\\\n", "[ \\\n", "ADD [\n", "ADD a \\\n", "\\\n"])
def test_scan_time_is_linear_in_length_of_text(line: str) -> None:
    """A quadratic scan of one MiB takes hours and exceeds the timeout of every test."""
    text = line * (1024 * 1024 // len(line))
    check_adds(text)
