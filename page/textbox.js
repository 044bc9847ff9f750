// The reader's text box: it grows with the text, and every change can be taken back, whether it was typed or pressed.
//
//   GPT.textbox.start(beginning, onchange)    onchange(text, isWritten) after each change
//   GPT.textbox.write(text, { joins })        puts a text there, as a button does; `joins`: taken back with the previous change
//
// A browser forgets its own history of a text box when a script writes into it. So the history is kept here.

var GPT = GPT || {};
(() => {
  "use strict";
  const ONE_GO = 1000; // letters of a word that follow each other within this time, in milliseconds, are taken back together
  let [box, first, changed] = [null, "", () => {}];
  let [past, future] = [[], []];
  let now = { text: "", from: 0, to: 0 };
  let typedAt = -Infinity;

  /** As high as its text, unless the style sheet can say so: this costs a layout of the page for each key. */
  function grow() {
    if (CSS.supports("field-sizing", "content")) return;
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + 2}px`;
  }

  /** Adds a change to the history; `joins` adds it to the previous change instead. */
  function record(joins) {
    if (box.value === now.text) return;
    if (!joins) past.push(now);
    future = [];
    now = { text: box.value, from: box.selectionStart, to: box.selectionEnd };
  }

  function typed(event) {
    const at = performance.now();
    const isLetter = /^(insertText|insertCompositionText|deleteContent)/.test(event.inputType) && !/\s/.test(event.data || "");
    const isOneGo = isLetter && at - typedAt < ONE_GO;
    typedAt = at;
    record(event.isComposing || isOneGo);
    show(false);
  }

  function write(text, { joins = false } = {}) {
    box.value = text;
    typedAt = -Infinity;
    record(joins);
    box.scrollTop = box.scrollHeight;
    show(true);
  }

  /** Moves one step in the history: undo() with (past, future), redo() with (future, past). */
  function step(from, to) {
    const before = from.pop();
    if (!before) return;
    to.push(now);
    now = before;
    typedAt = -Infinity;
    box.value = now.text;
    if (document.activeElement === box) box.setSelectionRange(now.from, now.to);
    show(true);
  }
  const undo = () => step(past, future);
  const redo = () => step(future, past);

  function show(isWritten) {
    grow();
    const buttons = { undo: past.length > 0, restart: box.value !== first };
    for (const [name, isOn] of Object.entries(buttons)) GPT.parts.enable(document.getElementById(name), isOn);
    changed(box.value, isWritten);
  }

  /** Ctrl+Z works everywhere on the page, except in another field that has a history of its own. */
  function shortcut(event) {
    const isOther = event.target !== box && event.target.matches?.("textarea, input:not([type=radio], [type=checkbox], [type=range])");
    if (isOther || !(event.ctrlKey || event.metaKey) || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key !== "z" && !(key === "y" && event.ctrlKey)) return;
    event.preventDefault();
    if (key === "y" || event.shiftKey) redo();
    else undo();
  }

  function start(beginning, onchange) {
    box = document.getElementById("text");
    [first, changed] = [beginning, onchange];
    if (box.value === box.defaultValue) box.value = beginning; // unless the browser restored an earlier text
    now = { text: box.value, from: box.value.length, to: box.value.length };
    box.addEventListener("input", typed);
    box.addEventListener("beforeinput", (event) => {
      if (event.inputType !== "historyUndo" && event.inputType !== "historyRedo") return;
      event.preventDefault();
      if (event.inputType === "historyUndo") undo();
      else redo();
    });
    addEventListener("keydown", shortcut);
    document.getElementById("undo").addEventListener("click", undo);
    document.getElementById("restart").addEventListener("click", () => write(first));
    for (const button of document.querySelectorAll("[data-text]")) {
      button.addEventListener("click", () => write(button.dataset.text));
    }
    new ResizeObserver(grow).observe(box.parentElement); // another width, another number of lines
    show(true);
  }

  GPT.textbox = { start, write };
})();
