// Small helps on a page: a one-time link that signs in by itself, and buttons that copy what stands beside them.
(() => {
  "use strict";

  const THANKS = 2_000;

  async function copy(button) {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    const words = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => {
      button.textContent = words;
    }, THANKS);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelector("form[data-at-once]")?.requestSubmit();
  });
})();
