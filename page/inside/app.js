// The state that all pictures of a report share: the chosen head, token and key. The report is one object, GPT.report,
// written by `main.py interpret`; src/transformer/interpret/report.py says what it contains.
//
//   GPT.picture("lens", { mount(element, report) {...}, update(state) {...} })     one file each
//   GPT.inside.set({ layer: 3, head: 1 })       or token, key: changes the choice, and every picture follows

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, percent, visible } = GPT.draw;
  const FULL = 65535; // attention weights are stored as whole numbers of 16 bits: 1 is FULL
  const report = GPT.report;
  const state = { layer: 0, head: 0, token: 0, key: null };
  const pictures = new Map();
  GPT.picture = (name, picture) => pictures.set(name, picture);

  /** The name of a head, as everywhere in the project: layer and head, both from 0. */
  const headName = (layer, head) => `${layer}.${head}`;

  /** The attention weight of a token for an earlier one, from 0 to 1. */
  let stored = null;
  function weight(layer, head, token, key) {
    if (key > token) return 0;
    const [T, H] = [report.prompt.length, report.heads];
    const triangle = (T * (T + 1)) / 2;
    return stored[(layer * H + head) * triangle + (token * (token + 1)) / 2 + key] / FULL;
  }

  /** Whole numbers of 16 bits, lowest byte first as in browsers, from base64. */
  function unpacked(text) {
    const letters = atob(text);
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i += 1) bytes[i] = letters.charCodeAt(i);
    return new Uint16Array(bytes.buffer);
  }

  function set(changes) {
    Object.assign(state, changes);
    for (const { picture } of mounted) picture.update(state);
  }

  /** The first lines: the model, the prompt, the question, the most likely next tokens. */
  function opening() {
    const at = (id) => document.getElementById(id);
    document.title = `Inside ${report.model}`;
    at("model").textContent = report.model;
    at("about").textContent = report.about.join(" · ");
    if (!report.prompt) return document.querySelector(".asked").remove();
    const prompts = report.versus ? ["The first prompt", "The second prompt"] : ["The prompt"];
    prompts.forEach((name, i) => {
      const words = html("p", { class: "context" }, written([report.prompt, report.versus][i]));
      at("prompts").append(html("h2", {}, name), words);
    });
    if (report.versus) at("question").textContent += " after the first prompt";
    const bars = GPT.parts.bars("The most likely next tokens");
    bars.show(
      report.next.map(({ piece, probability }) => ({
        label: chip(piece),
        fraction: probability,
        text: percent(probability),
        isMarked: piece.id === report.attribution.target.id,
      })),
    );
    at("next").append(bars.element);
  }

  /** Tokens as boxes, with a line break where the text has one. */
  const written = (pieces) =>
    pieces.flatMap((piece) => [
      html("span", { class: "token" }, visible(piece)),
      /\n/.test(piece.text) ? html("br", {}) : "",
    ]);

  const mounted = [];
  function start() {
    if (report.attention) stored = unpacked(report.attention);
    if (report.prompt) state.token = report.prompt.length - 1;
    [state.layer, state.head] = report.chosen;
    opening();
    for (const element of document.querySelectorAll("[data-picture]")) {
      const name = element.dataset.picture;
      if (!report[name]) element.remove();
      else {
        const picture = pictures.get(name);
        picture.mount(element, report);
        mounted.push({ picture });
      }
    }
    set({});
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const { picture } of mounted) picture.recolour?.();
    });
  }

  GPT.inside = { report, state, set, start, weight, headName };
})();
