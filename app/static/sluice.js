// What the pages need beyond htmx: say whether the page is live, find back after a restart, and write times as people read them.
(() => {
  "use strict";

  const SILENCE = 40_000; // the server says something every 15 s at least: longer silence is a dead connection
  const RETRY = 1_000;
  const live = document.querySelector("[data-live]");

  // ---- the stream ----

  const sign = document.getElementById("link");
  const words = { live: "Live", reconnecting: "Reconnecting…", ended: "Not live" };
  let heard = Date.now();

  function say(state) {
    if (sign.dataset.state === state) return;
    sign.dataset.state = state;
    sign.textContent = words[state];
  }

  function lost() {
    say("reconnecting");
  }

  function refused(status) {
    if (status === 401 || status === 403) location.assign(live.dataset.signIn);
    else lost();
  }

  // htmx comes back by itself once a stream has stood; when the very first connection fails it does not
  function again() {
    lost();
    setTimeout(() => htmx.trigger(live, "sluice:connect"), RETRY);
  }

  function watch() {
    live.addEventListener("htmx:sse:before:connection", (event) => {
      if (event.detail.connection.attempt > 0) lost();
    });
    live.addEventListener("htmx:sse:before:message", () => {
      heard = Date.now();
      say("live");
    });
    live.addEventListener("htmx:sse:error", (event) => refused(event.detail.status));
    live.addEventListener("htmx:response:error", (event) => {
      const status = event.detail.ctx.response.status;
      refused(status);
      if (status >= 500) again();
    });
    live.addEventListener("htmx:error", again);
    live.addEventListener("signed-out", () => location.assign(live.dataset.signIn));
    live.addEventListener("gone", () => location.reload());
    live.addEventListener("hello", (event) => {
      if (event.detail.data !== live.dataset.version) location.reload();
    });
    setInterval(() => {
      if (document.hidden || Date.now() - heard < SILENCE) return;
      heard = Date.now();
      lost();
      live._htmx?.sse?.reader?.cancel();
    }, 5_000);
    document.addEventListener("visibilitychange", () => {
      heard = Date.now();
    });
  }

  // ---- times ----

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
    const now = new Date();
    if (element.dataset.as === "ago") return `${span((now - then) / 1000)} ago`;
    if (element.dataset.as === "since") return span((now - then) / 1000);
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
    document.querySelector("form[data-at-once]")?.requestSubmit();
  });
  if (live) watch();
})();
