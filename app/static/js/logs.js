// A log that is followed: lines as the API's stream brings them, searched while they come, the newest in sight.
(() => {
  "use strict";

  const MOST = 5_000; // lines that a page keeps
  const COLOURS = 8; // as app/pages/logs.py counts them
  const RETRY = 1_000;
  const lines = document.getElementById("lines");
  const search = document.getElementById("q");
  const follow = document.getElementById("follow");
  const sign = document.getElementById("following");
  const none = document.getElementById("none");
  const clock = new Intl.DateTimeFormat(undefined, {
    hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
  });
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
  const many = lines.dataset.many === "1";
  const seen = new Map(); // instance → the time of its last line
  const colours = new Map();

  function date(line) {
    const at = line.querySelector(".at");
    if (!line.dataset.at) return;
    const then = new Date(line.dataset.at);
    at.textContent = clock.format(then);
    at.title = exact.format(then);
  }

  function remember(line) {
    const { instance, at } = line.dataset;
    if (at > (seen.get(instance) ?? "")) seen.set(instance, at);
  }

  function filter(line) {
    const text = line.querySelector(".said").textContent;
    line.hidden = !text.toLowerCase().includes(search.value.trim().toLowerCase());
  }

  function span(kind, text) {
    const made = document.createElement("span");
    made.className = kind;
    made.textContent = text;
    return made;
  }

  function row({ instance, at, text }) {
    const line = document.createElement("li");
    if (at) line.dataset.at = at;
    line.append(span("at", ""));
    if (many) {
      if (!colours.has(instance)) colours.set(instance, colours.size % COLOURS);
      line.append(span(`who c${colours.get(instance)}`, instance));
    }
    line.append(span("said", text));
    date(line);
    filter(line);
    return line;
  }

  // lines come in bursts: they are put on the page together, once a frame
  let waiting = [];

  function put() {
    lines.append(...waiting);
    waiting = [];
    while (lines.childElementCount > MOST) lines.firstElementChild.remove();
    none.hidden = true;
    if (follow.checked) lines.scrollTop = lines.scrollHeight;
  }

  function come(event) {
    const said = JSON.parse(event.data);
    const place = said.at ?? Number(event.lastEventId); // a build's lines have numbers
    if (place <= (seen.get(said.instance) ?? "")) return;
    seen.set(said.instance, place);
    if (waiting.push(row(said)) === 1) requestAnimationFrame(put);
  }

  function say(state, words) {
    sign.dataset.state = state;
    if (sign.textContent !== words) sign.textContent = words;
  }

  // an EventSource comes back by itself, but after an answer that is none: then the session is over, or Sluice is away
  async function lost(source) {
    if (source.readyState !== EventSource.CLOSED) {
      say("reconnecting", "Reconnecting…");
      return;
    }
    say("reconnecting", "Reconnecting…");
    try {
      const answer = await fetch(location.href, { redirect: "manual" });
      if (answer.type === "opaqueredirect") location.reload(); // leads to the sign-in page, and back here
    } catch {
      // away: tried again
    }
    setTimeout(connect, RETRY);
  }

  function connect() {
    const source = new EventSource(lines.dataset.stream);
    source.addEventListener("open", () => say("live", "Live"));
    source.addEventListener("line", come);
    source.addEventListener("end", () => {
      source.close();
      say("ended", "Ended");
    });
    source.addEventListener("error", () => lost(source));
  }

  for (const line of lines.children) {
    date(line);
    remember(line);
    const who = line.querySelector(".who");
    if (who) colours.set(line.dataset.instance, Number(who.className.match(/c(\d)/)[1]));
  }
  search.addEventListener("input", () => {
    for (const line of lines.children) filter(line);
  });
  lines.scrollTop = lines.scrollHeight;
  if (!lines.dataset.stream) return;
  sign.hidden = false;
  follow.closest("label").hidden = false;
  follow.addEventListener("change", () => {
    if (follow.checked) lines.scrollTop = lines.scrollHeight;
  });
  lines.addEventListener("wheel", (event) => {
    if (event.deltaY < 0) follow.checked = false; // who reads further up is not pulled down
  }, { passive: true });
  connect();
})();
