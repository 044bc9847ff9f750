// The attention weights of every head over the reader's text.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, number, paint, palette, percent, visible, spoken } = GPT.draw;
  const { report, set, weight, headName } = GPT.inside;
  const DEEP = 8; // layers
  const SIDE = 40; // pixels of a small picture at most: a larger text is drawn smaller

  GPT.picture("attention", {
    mount(element) {
      this.map = GPT.parts.headMap("Attention of every head", {
        paint: (cell, layer, head) => this.thumbnail(cell, layer, head),
        describe: result,
      });
      this.card = html("dl", { class: "card-facts" });
      this.title = html("h4", { "aria-live": "polite" });
      this.sentence = html("p", { class: "readout" });
      this.matrix = GPT.parts.matrix("Attention weights of the chosen head", {
        onchoose: (token, key) => set({ token, key }),
        onpeek: (token, key) => this.say(token, key),
      });
      const isDeep = report.layers > DEEP; // then the grid of heads is as tall as everything beside it
      const left = html("div", {}, this.map.element, !isDeep && this.card);
      const right = html("div", {}, this.title, this.text(), this.sentence, this.matrix.element, isDeep && this.card);
      element.append(html("div", { class: "two" }, left, right));
      addEventListener("resize", () => this.update(GPT.inside.state));
    },

    /** The prompt: the pointer or the arrow keys choose a token. */
    text() {
      const words = html("p", { class: "shaded words", role: "listbox", "aria-label": "The prompt: choose a token" });
      words.setAttribute("aria-orientation", "horizontal");
      this.tokens = report.prompt.map((piece, t) => {
        const act = { onpointerenter: () => this.peek(t), onclick: () => set({ token: t, key: null }) };
        const attributes = { class: "token", role: "option", tabindex: -1, "aria-label": spoken(piece), ...act };
        return html("span", attributes, visible(piece));
      });
      words.append(...this.tokens.flatMap((box, t) => (breaks(report.prompt[t]) ? [box, html("br", {})] : [box])));
      words.addEventListener("pointerleave", () => this.peek(GPT.inside.state.token));
      GPT.parts.roving(words, () => this.tokens, (token) => set({ token, key: null }));
      return words;
    },

    recolour() {
      this.map.repaint();
    },

    update(state) {
      const { layer, head, token } = state;
      this.map.show(state);
      this.title.textContent = `Head ${headName(layer, head)}`;
      this.card.replaceChildren(...facts(layer, head));
      this.tokens.forEach((box, t) => {
        box.setAttribute("tabindex", t === token ? 0 : -1);
        box.setAttribute("aria-selected", t === token);
      });
      this.peek(token);
      this.matrix.show({
        pieces: report.prompt,
        weight: (t, s) => weight(layer, head, t, s),
        token,
        key: state.key ?? this.strongest(token),
        drawn: layer,
        head,
      });
      if (state.key !== null) this.say(token, state.key);
    },

    /** Colours the text by the weights of a token. */
    peek(token) {
      const { layer, head } = GPT.inside.state;
      this.tokens.forEach((box, s) => {
        const strength = s > token ? 0 : Math.sqrt(weight(layer, head, token, s));
        box.style.setProperty("--strength", `${Math.round(100 * strength)}%`);
        box.classList.toggle("is-query", s === token);
        box.classList.toggle("is-later", s > token);
      });
      this.say(token, this.strongest(token));
    },

    /** The token that gets the largest weight. */
    strongest(token) {
      const { layer, head } = GPT.inside.state;
      let most = 0;
      for (let s = 1; s <= token; s += 1) {
        if (weight(layer, head, token, s) > weight(layer, head, token, most)) most = s;
      }
      return most;
    },

    say(token, key) {
      const { layer, head } = GPT.inside.state;
      const { prompt } = report;
      this.sentence.replaceChildren(
        chip(prompt[token]),
        ` (token ${token}) attends to `,
        ...(key === token ? ["itself"] : [chip(prompt[key]), ` (token ${key})`]),
        key > token
          ? ": masked, it comes later"
          : ` with ${percent(weight(layer, head, token, key))}; evenly it would be ${percent(1 / (token + 1))}`,
      );
    },

    /** One head, small: for a long text, each pixel is the largest of the weights that it stands for. */
    thumbnail(cell, layer, head) {
      const T = report.prompt.length;
      const side = Math.min(T, SIDE);
      const values = new Float32Array(side * side);
      for (let t = 0; t < T; t += 1) {
        const row = Math.floor((t * side) / T) * side;
        for (let s = 0; s <= t; s += 1) {
          const at = row + Math.floor((s * side) / T);
          values[at] = Math.max(values[at], Math.sqrt(weight(layer, head, t, s)));
        }
      }
      const canvas = html("canvas", { "aria-hidden": "true" });
      paint(canvas, values, side, 1, palette());
      cell.classList.add("is-picture");
      cell.replaceChildren(canvas);
    },
  });

  const breaks = (piece) => /\n/.test(piece.text);

  /** The share of a head in the prediction, and what the last token attends to most. */
  function result(layer, head) {
    const { key, weight: most } = report.results[layer][head];
    const share = number(report.attribution.heads[layer][head]);
    const word = spoken(report.prompt[key]).replace(/^space (?=.)/, ""); // read by everyone, not only aloud
    return `share ${share}; the last token attends most to ${word}, ${percent(most)}`;
  }

  /** What is known about a head: its share, the tokens that it favours, its habits beside those of an even head. */
  function facts(layer, head) {
    const { up, down } = report.results[layer][head];
    const favoured = (found) => found.flatMap(({ piece }, i) => [i ? " " : "", chip(piece)]);
    const kinds = report.habits.kinds.filter(({ even }) => even !== null);
    const lines = [
      ["share in the logit", number(report.attribution.heads[layer][head])],
      ["makes more likely", favoured(up)],
      ["makes less likely", favoured(down)],
      ...kinds.map(({ name, scores, even }) => [name, `${percent(scores[layer][head])} (even ${percent(even)})`]),
    ];
    return lines.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value)));
  }
})();
