// Times as people read them: in their own zone, "3 min ago" or a clock, the exact one on hover.
(() => {
  "use strict";

  // the server's clock: the reader's may be minutes off
  const served = document.querySelector("[data-now]");
  const skew = served ? served.dataset.now * 1000 - performance.timeOrigin - performance.now() : 0;
  window.sluice = { now: () => Date.now() + skew };

  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

  function span(seconds) {
    if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
    return `${Math.floor(seconds / 86400)} d`;
  }

  function told(element) {
    const then = new Date(element.dateTime);
    const now = new Date(sluice.now());
    if (element.dataset.as === "ago") return `${span((now - then) / 1000)} ago`;
    if (element.dataset.as === "since") return span((now - then) / 1000);
    if (element.dataset.as === "in") return then > now ? `in ${span((then - now) / 1000)}` : "now";
    return then.toDateString() === now.toDateString() ? clock.format(then) : day.format(then);
  }

  function tell() {
    for (const element of document.querySelectorAll("time[datetime]")) {
      const text = told(element);
      if (element.textContent !== text) element.textContent = text;
      const title = day.format(new Date(element.dateTime));
      if (element.title !== title) element.title = title;
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    tell();
    setInterval(() => document.hidden || tell(), 1_000);
    new MutationObserver(tell).observe(document.body, { childList: true, subtree: true, characterData: true });
  });
})();
