// Folded parts: <details class="fold">, for code and for what a reader may skip. Diagrams inside are drawn when it is opened.
//
//   GPT.folds.isClosed(element)       whether the element is inside a closed <details>
//   GPT.folds.reveal(element)         opens what hides the element; and, of a chapter, the fold with `data-opens`
//   GPT.folds.unfold(), .refold()     for paper: opens all, and then closes those again
//   GPT.folds.start(onopen)           onopen(details) is called after one was opened

var GPT = GPT || {};
(() => {
  "use strict";
  const { html } = GPT.draw;
  const KEY = "lesson-all-code"; // of this visit only
  const forPaper = new Set();

  const isClosed = (element) => Boolean(element.parentElement?.closest("details:not([open])"));
  const withCode = () => Array.from(document.querySelectorAll("details.fold:has(> figure.code)"));

  function reveal(element) {
    if (!element) return;
    for (let around = element.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
    for (const fold of element.querySelectorAll(":scope > details[data-opens]")) fold.open = true;
  }

  function unfold() {
    for (const fold of document.querySelectorAll("details.fold:not([open])")) {
      forPaper.add(fold);
      fold.open = true;
    }
  }

  function refold() {
    for (const fold of forPaper) fold.open = false;
    forPaper.clear();
  }

  /** "14 lines", behind the name of quoted code. */
  function countLines() {
    for (const fold of withCode()) {
      const lines = fold.querySelector("pre").textContent.split("\n").filter((line) => line.trim() && line !== "…").length;
      fold.querySelector("summary").append(html("small", {}, ` (${lines} lines)`));
    }
  }

  /** The storage of the tab. A browser may refuse it, most often to a page from a file. */
  function stored(change) {
    try {
      return change ? sessionStorage.setItem(KEY, change) : sessionStorage.getItem(KEY);
    } catch {
      return null;
    }
  }

  /** One control below the contents, for readers who want all code. */
  function offerAllCode() {
    const show = (isOn) => withCode().forEach((fold) => {
      if (isOn) reveal(fold);
      else fold.open = false;
    });
    const box = html("input", { type: "checkbox", onchange: () => {
      show(box.checked);
      stored(box.checked ? "yes" : "no");
    } });
    document.getElementById("contents").append(html("label", { class: "all-code" }, box, "Show all code"));
    box.checked = stored() === "yes";
    if (box.checked) show(true);
  }

  function start(onopen) {
    countLines();
    offerAllCode();
    // The event does not bubble.
    document.addEventListener("toggle", ({ target }) => target.open && onopen(target), { capture: true });
  }

  GPT.folds = { isClosed, reveal, unfold, refold, start };
})();
