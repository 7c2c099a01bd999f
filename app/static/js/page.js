// Small helps on a page: a link that signs in by itself, buttons that copy, and a tab's title that says how things stand.
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

  function retitle() {
    const title = document.querySelector("[data-title]")?.dataset.title;
    if (title && document.title !== title) document.title = title;
  }

  document.addEventListener("DOMContentLoaded", () => {
    retitle();
    new MutationObserver(retitle).observe(document.body, { attributes: true, attributeFilter: ["data-title"], subtree: true });
    document.querySelector("form[data-at-once]")?.requestSubmit();
  });
})();
