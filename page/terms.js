// Terms light up together: in the text, the formulas, the pictures and the code. Every element with data-term="query" (or
// key, value, stream, score, weight) is a place of that term. The style sheet shows the places of the term that
// <html data-lit="..."> names; this file sets it:
//
//   pointing at a place, or focusing its button, lights the term; leaving it ends that;
//   a press, a tap, Enter or Space keeps it lit until the next press, or Escape.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html } = GPT.draw;
  const VARIABLES = {
    q: "query", k: "key", v: "value", keys: "key", values: "value", x: "stream", scores: "score", weights: "weight",
  };
  const COLOURS = { query: "q", key: "k", value: "v", stream: "x" };

  let kept = null; // the term that a press keeps lit

  function light(term) {
    const root = document.documentElement;
    if (term) root.dataset.lit = term;
    else delete root.dataset.lit;
    for (const button of document.querySelectorAll("button.term")) {
      button.setAttribute("aria-pressed", String(button.parentElement.dataset.term === kept));
    }
  }

  const termAt = (element) => element?.closest?.("[data-term]")?.dataset.term ?? null;

  /** The buttons of a definition, so that terms are reached by keyboard. */
  function makeButtons() {
    for (const definition of document.querySelectorAll("dfn[data-term]")) {
      const button = html("button", { type: "button", class: "term", "aria-pressed": "false" });
      button.append(...definition.childNodes);
      definition.append(button);
    }
  }

  /** Marks the variables that `data-terms` names in quoted code; comments stay as they are. The text does not change. */
  function markVariables() {
    for (const figure of document.querySelectorAll("[data-terms]")) {
      const names = new Set(figure.dataset.terms.split(" "));
      for (const code of figure.querySelectorAll("pre code")) {
        for (const node of Array.from(code.childNodes).filter(({ nodeType }) => nodeType === Node.TEXT_NODE)) {
          const parts = node.textContent.split(/(\b[a-z_]+\b)/);
          node.replaceWith(...parts.map((part) => (names.has(part) ? variable(part) : part)));
        }
      }
    }
  }

  function variable(name) {
    const term = VARIABLES[name];
    return html("span", { class: COLOURS[term], "data-term": term }, name);
  }

  function listen() {
    document.addEventListener("pointerover", ({ target, pointerType }) => {
      if (pointerType === "mouse") light(termAt(target) ?? kept);
    });
    document.addEventListener("focusin", ({ target }) => {
      if (target.matches("button.term")) light(termAt(target));
    });
    document.addEventListener("focusout", ({ target }) => {
      if (target.matches("button.term")) light(kept);
    });
    document.addEventListener("click", ({ target }) => {
      if (target.closest("summary")) return; // whoever opens code wants to see the term in it
      const term = target.closest("[role=slider], button:not(.term), a, input, label") ? null : termAt(target);
      if (!term && !kept) return;
      kept = term && term !== kept ? term : null;
      light(kept);
    });
    document.addEventListener("keydown", ({ key }) => {
      if (key !== "Escape" || !kept) return;
      kept = null;
      light(null);
    });
  }

  /** Called once by app.js, after it has coloured the comments of the code. */
  GPT.terms = () => {
    makeButtons();
    markVariables();
    listen();
  };
})();
