// The stream of a live page beyond what htmx does: say whether it stands, find back after a restart or a sleep.
(() => {
  "use strict";

  const SILENCE = 40_000; // the server says something every 15 s at least: longer silence is a dead connection
  const RETRY = 1_000;
  const live = document.querySelector("[data-live]");

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

  if (live) watch();
})();
