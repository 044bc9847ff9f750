// The film of a run: attention weights on one text at many steps, with a slider and a Play button. The recording is one
// object, GPT.recorded, written by `main.py interpret --film`:
//
//   run, about        the name of the run, and facts about it
//   layers, heads     L and H; a head is named layer.head, both from 0
//   tokens            the text: one string for each token, T in all
//   frames            [{ step, weights }]: base64 of bytes, weight * 255; for each layer, head and query the weights of the
//                     keys up to the query
//   inside            [{ step, scores: { habit: [layer][head] }, even: { habit: score }, first, second }]: habits and losses
//   train             [[step, loss]]

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, paint, palette, percent, count } = GPT.draw;
  const { slider, button } = GPT.charts;
  const recorded = GPT.recorded;
  const FULL = 255;
  const PACE = 350; // milliseconds for a frame
  const state = { frame: recorded.frames.length - 1, layer: recorded.layers - 1, head: 0, token: recorded.tokens.length - 1, key: null };
  const listeners = [];

  const pieces = recorded.tokens.map((text) => ({ text: text.replaceAll("\ufffd", "□"), isEnd: text === "<|endoftext|>" }));
  const unpacked = new Map(); // frames are unpacked when they are first shown
  function weightsOf(frame) {
    if (!unpacked.has(frame)) {
      unpacked.set(frame, Uint8Array.from(atob(recorded.frames[frame].weights), (letter) => letter.charCodeAt(0)));
    }
    return unpacked.get(frame);
  }

  /** The attention weight of a token for an earlier one in the current frame, from 0 to 1. */
  function weight(layer, head, token, key) {
    if (key > token) return 0;
    const triangle = (pieces.length * (pieces.length + 1)) / 2;
    const at = (layer * recorded.heads + head) * triangle + (token * (token + 1)) / 2 + key;
    return weightsOf(state.frame)[at] / FULL;
  }

  const headName = (layer, head) => `${layer}.${head}`;

  /** Changes the frame, the head or the token, and everything that shows it. */
  function set(changes) {
    const before = state.frame;
    Object.assign(state, changes);
    for (const listener of listeners) listener(state, state.frame !== before);
  }

  /** The measurement at the step of a frame, if there is one. */
  const measured = (frame) => recorded.inside.find(({ step }) => step === recorded.frames[frame].step);

  // Play, pause and the slider

  let timer = null;
  function pause() {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶\ufe0e Play";
  }
  function toggle() {
    if (timer) return pause();
    if (state.frame === recorded.frames.length - 1) set({ frame: 0 });
    play.textContent = "❚❚ Pause";
    timer = setInterval(() => {
      set({ frame: state.frame + 1 });
      if (state.frame === recorded.frames.length - 1) pause();
    }, PACE);
    return undefined;
  }
  const play = button("▶\ufe0e Play", toggle);

  function controls() {
    const last = recorded.frames.length - 1;
    const words = (frame) => `step ${count(recorded.frames[frame].step)} (${frame + 1} of ${last + 1})`;
    const bar = slider("Step", { max: last, text: words }, (frame) => { pause(); set({ frame }); });
    document.getElementById("controls").append(play, bar.element);
    listeners.push(({ frame }) => bar.show(frame));
    addEventListener("keydown", (event) => {
      if (event.key !== " " || event.target.closest("button, input")) return;
      event.preventDefault(); // the page would scroll
      toggle();
    });
  }

  // Attention

  function attention() {
    const map = GPT.parts.headMap("Attention of every head", { paint: thumbnail, describe: (layer, head) => habits(layer, head) });
    const title = html("h4", { "aria-live": "polite" });
    const sentence = html("p", { class: "readout" });
    const matrix = GPT.parts.matrix("Attention weights of the chosen head", {
      onchoose: (token, key) => set({ token, key }),
      onpeek: (token, key) => say(token, key),
    });
    document.getElementById("attention").append(
      html("div", {}, map.element), html("div", {}, title, sentence, matrix.element));

    const strongest = (token) => {
      let most = 0;
      for (let s = 1; s <= token; s += 1) if (weight(state.layer, state.head, token, s) > weight(state.layer, state.head, token, most)) most = s;
      return most;
    };
    function say(token, key) {
      const share = key > token ? ": masked, it comes later" : ` with ${percent(weight(state.layer, state.head, token, key))}; evenly it would be ${percent(1 / (token + 1))}`;
      sentence.replaceChildren(chip(pieces[token]), ` (token ${token}) attends to `,
        ...(key === token ? ["itself"] : [chip(pieces[key]), ` (token ${key})`]), share);
    }
    function update(now, isNewFrame) {
      const { frame, layer, head, token } = now;
      if (isNewFrame) map.repaint();
      map.show(now);
      title.textContent = `Head ${headName(layer, head)} at step ${count(recorded.frames[frame].step)}`;
      const key = now.key ?? strongest(token);
      matrix.show({ pieces, weight: (t, s) => weight(layer, head, t, s), token, key, drawn: `${frame} ${layer}`, head });
      say(token, key);
    }
    listeners.push(update);
    addEventListener("resize", () => update(state, false));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => map.repaint());
  }

  function thumbnail(cell, layer, head) {
    const T = pieces.length;
    const values = Float32Array.from({ length: T * T }, (_, i) => Math.sqrt(weight(layer, head, Math.floor(i / T), i % T)));
    const canvas = cell.querySelector("canvas") || html("canvas", { "aria-hidden": "true" });
    paint(canvas, values, T, 1, palette());
    cell.classList.add("is-picture");
    if (!canvas.isConnected) cell.replaceChildren(canvas);
  }

  /** The habits of a head at the current step. */
  function habits(layer, head) {
    const found = measured(state.frame);
    if (!found) return "not measured at this step";
    return Object.entries(found.scores).map(([name, scores]) => `${name} ${percent(scores[layer][head] ?? 0)}`).join(", ");
  }

  function start() {
    document.title = `The film of ${recorded.run}`;
    document.getElementById("run").textContent = recorded.run;
    document.getElementById("about").textContent = recorded.about.join(" · ");
    const last = recorded.inside[recorded.inside.length - 1];
    if (last) { // begin with the head that has the strongest habit of induction
      const scores = last.scores.induction.flatMap((row, layer) => row.map((score, head) => ({ score: score ?? 0, layer, head })));
      const best = scores.reduce((most, one) => (one.score > most.score ? one : most));
      [state.layer, state.head] = [best.layer, best.head];
    }
    controls();
    attention();
    GPT.film.charts();
    set({ frame: state.frame });
  }

  GPT.film = { recorded, state, set, start, toggle, weight, listeners, measured };
  GPT.inside = { report: recorded, set, headName }; // for head_map.js
})();
