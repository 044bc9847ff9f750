// The state that all diagrams use: the reader's text, the model's trace of it, and the reader's selection.
//
//   GPT.diagram("tokens", { mount(element, model) {...}, update(state) {...} })     in page/diagrams/, one file each
//   GPT.app.set({ text: "ROMEO:" })          or token, layer, head, key: changes the selection, and redraws
//
// The model reads the tokens that a change of the text brings: see live.js. The diagrams in view are redrawn in the next frame,
// those beside the text or near the window afterwards, the others when they come near. In a closed fold (folds.js) none is
// built or drawn.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html } = GPT.draw;
  const NEAR = "300px"; // diagrams within this distance of the window are redrawn

  const diagrams = new Map();
  GPT.diagram = (name, diagram) => diagrams.set(name, diagram);

  const state = { text: "", pieces: [], tokens: [], cut: 0, trace: null, token: 0, layer: 0, head: 0, key: null };
  const figures = new Map(); // element -> { element, diagram, body, reading, isBuilt, isInView, isNear, isStale, isNew }
  const known = new WeakMap(); // logits -> their probabilities
  let [model, live, asked] = [null, null, null]; // asked: a text that is being read, and its changes
  let [isWaiting, isBehind] = [false, false]; // diagrams in view, and near it, are to be redrawn

  /** Changes the state; the diagrams are redrawn before the next frame. A new text, and what is changed with it, takes
   *  effect when the model has read it: the trace in the state is always that of the tokens in the state. */
  function set(changes) {
    if ("text" in changes) {
      asked = { text: read(changes.text), changes };
      live.read(asked.text.tokens);
      return;
    }
    if (asked) Object.assign(asked.changes, changes);
    change(changes);
  }

  /** Cuts a text into tokens. An empty text becomes the end-of-text token. Of a text that is longer than the context, the
   *  beginning is left out, in steps of a quarter of the context: between two steps, the model can keep what it has read. */
  function read(text) {
    const { tokenizer, config } = model;
    const ids = tokenizer.encode(text);
    const step = Math.ceil(config.max_seq_len / 4);
    const cut = step * Math.ceil(Math.max(0, ids.length - config.max_seq_len) / step);
    const pieces = ids.slice(cut).map((id) => ({ ...piece(id), isEnd: false }));
    if (!pieces.length) pieces.push(piece(tokenizer.eot_id));
    return { text, cut, pieces, tokens: pieces.map(({ id }) => id) };
  }

  /** The model has read the text that was asked for last. */
  function onread(trace) {
    if (!asked) return; // read twice
    const [{ text, changes }, isFirst] = [asked, !state.trace];
    if (state.token >= state.tokens.length - 1) state.token = Infinity; // the last token stays chosen
    asked = null;
    Object.assign(state, text, { trace, key: null, next: (t) => probabilities(trace.logits(t)) });
    change(changes);
    if (isFirst) change(plainest());
  }

  function change(changes) {
    Object.assign(state, changes);
    state.token = Math.max(0, Math.min(state.tokens.length - 1, state.token));
    if (state.key !== null) state.key = Math.max(0, Math.min(state.tokens.length - 1, state.key));
    for (const figure of figures.values()) figure.isStale = true;
    if (!isWaiting) requestAnimationFrame(show);
    isWaiting = true;
  }

  /** The probabilities of logits, computed once: the logits of earlier tokens stay when a text grows. */
  function probabilities(logits) {
    if (!known.has(logits)) known.set(logits, GPT.sampling.softmax(logits));
    return known.get(logits);
  }

  /** Any id as a piece, shown like the pieces of the text. */
  function piece(id) {
    const { tokenizer } = model;
    return { id, text: tokenizer.decode([id]), bytes: Array.from(tokenizer.bytes(id)), isEnd: id === tokenizer.eot_id };
  }

  function show() {
    isWaiting = false;
    if (!state.trace) return;
    for (const figure of figures.values()) if (isFirst(figure)) refresh(figure);
    GPT.exercises.update(state);
    GPT.strip.show(state); // last, because it asks for the layout
    if (!isBehind) whenIdle(showNear);
    isBehind = true;
  }

  /** Whether a diagram is redrawn in the next frame: in view, or in the reader's hands. */
  const isFirst = ({ isInView, diagram, element }) => (isInView && !diagram.isBeside) || element.contains(document.activeElement);

  /** Redraws the diagrams near the window, one at a time, so that keys come first. */
  function showNear() {
    const figure = Array.from(figures.values()).find(({ isNear, isStale, element }) => isNear && isStale && !GPT.folds.isClosed(element));
    if (figure) refresh(figure);
    if (figure) whenIdle(showNear);
    else isBehind = false;
  }

  /** Redraws one diagram if its content has changed. The return value of update is the sentence below it. */
  function refresh(figure) {
    if (!figure.isStale || !state.trace || GPT.folds.isClosed(figure.element)) return;
    figure.isStale = figure.isNew = false;
    try {
      build(figure);
      const sentence = figure.diagram.update(state);
      if (sentence) figure.reading.replaceChildren(...[sentence].flat());
    } catch (error) {
      reportError(error); // as if nobody had caught it; but the other diagrams are drawn
    }
  }

  /** Waits until everything that was typed is computed, and the diagrams in view are drawn. */
  async function settled() {
    do await new Promise((done) => requestAnimationFrame(done));
    while (asked || isWaiting || isBehind);
  }

  function drawAll() {
    if (state.trace) for (const figure of figures.values()) refresh(figure);
  }

  /** Paper is always light: canvases that were painted dark are painted again. */
  function repaint() {
    for (const figure of figures.values()) figure.isStale = true;
    drawAll();
  }

  /** Draws the diagrams that the reader has not reached yet, one at a time, so that they have their height before. */
  function drawRest() {
    const figure = Array.from(figures.values()).find(({ isNew, element }) => isNew && !GPT.folds.isClosed(element));
    if (figure && state.trace) refresh(figure);
    if (figure) whenIdle(drawRest);
  }

  /** Safari has no requestIdleCallback. */
  const whenIdle = (work) => (window.requestIdleCallback ? requestIdleCallback(work, { timeout: 50 }) : setTimeout(work, 50));

  function mount(element) {
    const diagram = diagrams.get(element.dataset.diagram);
    const body = html("div", { class: "diagram-body" });
    const reading = html("p", { class: "reading" });
    element.append(body, reading);
    if (element.hasAttribute("data-schematic")) {
      element.querySelector("figcaption").append(html("span", { class: "badge" }, "schematic"));
    }
    const figure = { element, diagram, body, reading, isBuilt: false, isInView: false, isNear: false, isStale: true, isNew: true };
    if (!GPT.folds.isClosed(element)) build(figure);
    figures.set(element, figure);
    nearby.observe(element);
    inView.observe(element);
  }

  function build(figure) {
    if (figure.isBuilt) return;
    figure.isBuilt = true;
    figure.diagram.mount(figure.body, model);
  }

  /** The diagrams of a fold that was opened are drawn at the width that they have now. */
  function drawInside(fold) {
    for (const figure of figures.values()) {
      if (!fold.contains(figure.element)) continue;
      figure.isStale = true;
      refresh(figure);
    }
  }

  const nearby = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const figure = figures.get(target);
        figure.isNear = isIntersecting;
        if (isIntersecting) refresh(figure);
      }
    },
    { rootMargin: NEAR },
  );
  const inView = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) figures.get(target).isInView = isIntersecting;
  });

  /** Each change of the text is read at once. */
  function listen() {
    GPT.app.write = GPT.textbox.write;
    const beginning = document.querySelector(".examples [data-text]:not([hidden])").dataset.text;
    GPT.textbox.start(beginning, (text, isWritten) => set(isWritten ? { text, token: Infinity } : { text }));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => set({}));
    addEventListener("beforeprint", () => {
      GPT.folds.unfold();
      drawAll();
    });
    addEventListener("afterprint", GPT.folds.refold);
    matchMedia("print").addEventListener("change", repaint);
  }

  /** Words, numbers and formulas that depend on the model: see facts.js. */
  function fillFacts() {
    const facts = GPT.facts(model);
    for (const element of document.querySelectorAll("[data-fact]")) element.textContent = facts[element.dataset.fact];
    document.title = facts.title;
    const settings = GPT.settings(model);
    for (const element of document.querySelectorAll("[data-when]")) {
      const wanted = element.dataset.when.split(" ").map((one) => one.split("="));
      element.hidden = !wanted.every(([name, value]) => settings[name] === value);
    }
  }

  /** Shows comments in code in a paler colour. */
  function quietComments() {
    for (const code of document.querySelectorAll("pre code")) {
      const parts = code.textContent.split(/(#.*)/);
      code.replaceChildren(...parts.map((part) => (part[0] === "#" ? html("span", { class: "comment" }, part) : part)));
    }
  }

  /** A formula that is wider than its box can be scrolled with the keyboard too. */
  function reachFormulas() {
    const widths = new ResizeObserver((entries) => {
      for (const element of new Set(entries.map(({ target }) => target.closest(".formula")))) {
        const isWider = element.scrollWidth > element.clientWidth;
        for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", "Formula"]]) {
          if (isWider) element.setAttribute(name, value);
          else element.removeAttribute(name);
        }
      }
    });
    for (const part of document.querySelectorAll(".formula, .formula > math")) widths.observe(part);
  }

  /** The head that is shown first: one whose habit is plain on this text, if possible an induction head. */
  function plainest() {
    const clear = GPT.headHabits(state.trace, state.tokens).filter(({ even, best }) => GPT.isClear({ score: best.score, even }));
    const chosen = ["induction", "previous token"].map((wanted) => clear.find(({ name }) => name === wanted)).find(Boolean);
    return chosen ? { layer: chosen.best.layer, head: chosen.best.head } : {};
  }

  function start() {
    model = GPT.model = GPT.load(GPT.exported);
    Object.assign(GPT.app, { model, piece });
    live = GPT.live(model, onread);
    fillFacts();
    GPT.strip.start(model, set);
    listen();
    quietComments();
    reachFormulas();
    GPT.terms();
    GPT.folds.start(drawInside);
    document.querySelectorAll("[data-diagram]").forEach(mount);
    GPT.chapters.start(drawAll);
    whenIdle(drawRest);
  }

  GPT.app = { state, set, settled };
  document.addEventListener("DOMContentLoaded", start);
})();
