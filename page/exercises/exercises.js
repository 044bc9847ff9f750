// Exercises that the page checks: the reader does something anywhere on the page, and the page says how far it is.
//
//   <div data-exercise="one-back"><p>Find a head that looks one token back.</p></div>      in index.html
//   GPT.exercise("one-back", (state) => ({ done: true, words: "Head 3 gives 80% ..." }));   words: text or elements
//
// The check runs after each change of the state (app.js). An exercise that is done stays done. What is already true when
// the page opens does not count until it was false once: the reader has to do something.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html } = GPT.draw;
  const checks = new Map();
  const shown = new Map(); // element -> { check, words, mark, isDone, wasOpen }

  GPT.exercise = (name, check) => checks.set(name, check);

  function mount(element) {
    const words = html("p", { class: "exercise-words" });
    const mark = html("p", { class: "exercise-mark", role: "status" });
    element.classList.add("exercise");
    element.append(words, mark);
    shown.set(element, { check: checks.get(element.dataset.exercise), words, mark, isDone: false, wasOpen: false });
  }

  /** Checks all exercises against the state. */
  function update(state) {
    if (!state.trace) return;
    if (!shown.size) document.querySelectorAll("[data-exercise]").forEach(mount);
    for (const [element, exercise] of shown) {
      const { done, words } = exercise.check(state);
      if (done || !exercise.isDone) exercise.words.replaceChildren(...[words].flat()); // what was found stays there
      if (!done) exercise.wasOpen = true;
      if (!done || !exercise.wasOpen || exercise.isDone) continue;
      exercise.isDone = true;
      exercise.mark.textContent = "✓ Done.";
      element.classList.add("is-done");
    }
  }

  GPT.exercises = { update };
})();
