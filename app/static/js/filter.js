// Filters of a list: a field for text, and links (chips) for states, which the address keeps. Updates of the list are filtered too.
(() => {
  "use strict";

  const list = document.querySelector("[data-filtered]");
  if (!list) return;
  const field = document.querySelector("[data-filter]");
  const empty = document.querySelector("[data-no-match]");

  function set(element, attribute, on, value = "") {
    if (element.hasAttribute(attribute) === on) return;
    if (on) element.setAttribute(attribute, value);
    else element.removeAttribute(attribute);
  }

  function states() {
    return new URLSearchParams(location.search).getAll("state");
  }

  function apply() {
    const text = field?.value.trim().toLowerCase() ?? "";
    const wanted = states();
    let shown = 0;
    const rows = list.querySelectorAll("[data-state]");
    for (const row of rows) {
      const matches = row.dataset.name.includes(text) && (!wanted.length || wanted.includes(row.dataset.state));
      set(row.closest("li"), "hidden", !matches);
      shown += matches;
    }
    for (const chip of document.querySelectorAll("[data-states]")) {
      set(chip, "aria-current", chip.dataset.states === wanted.join(" "), "true");
    }
    set(empty, "hidden", shown > 0 || !rows.length);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-states]");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    history.pushState(null, "", link.hasAttribute("aria-current") ? location.pathname : link.href);
    apply();
  });
  addEventListener("popstate", apply);
  field?.addEventListener("input", apply);
  new MutationObserver(apply).observe(document.body, {
    attributes: true,
    attributeFilter: ["data-name", "data-state", "data-states", "hidden", "aria-current"],
    childList: true,
    subtree: true,
  });
  apply();
})();
