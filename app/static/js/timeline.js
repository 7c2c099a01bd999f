// The timeline of a running deployment grows with the clock; each event of the stream redraws it.
(() => {
  "use strict";

  const RIGHT = 1000; // the drawing's right end
  const STEP = 250;

  function grow() {
    const table = document.querySelector("[data-began]");
    if (!table) return;
    const began = Number(table.dataset.began);
    const now = sluice.now() / 1000;
    const scale = RIGHT / Math.max(Number(table.dataset.length), now - began);
    for (const bar of table.querySelectorAll("rect[data-from]")) {
      const left = Math.max(0, (Number(bar.dataset.from) - began) * scale);
      const right = (Number(bar.dataset.to ?? now) - began) * scale;
      set(bar, "x", left.toFixed(1));
      set(bar, "width", Math.max(0, right - left).toFixed(1));
    }
  }

  function set(bar, name, value) {
    if (bar.getAttribute(name) !== value) bar.setAttribute(name, value);
  }

  grow();
  setInterval(() => document.hidden || grow(), STEP);
  new MutationObserver(grow).observe(document.getElementById("content"), { childList: true, subtree: true });
})();
