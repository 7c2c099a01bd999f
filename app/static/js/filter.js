// A field that shows only those rows of a list whose name has what is typed; rows that arrive later are held to it too.
(() => {
  "use strict";

  const field = document.querySelector("[data-filter]");
  if (!field) return;

  function apply() {
    const wanted = field.value.trim().toLowerCase();
    for (const row of document.getElementById(field.dataset.filter)?.children ?? []) {
      const hidden = !row.querySelector("[data-name]").dataset.name.includes(wanted);
      if (row.hidden !== hidden) row.hidden = hidden;
    }
  }

  field.addEventListener("input", apply);
  new MutationObserver(apply).observe(document.body, { childList: true, subtree: true });
})();
