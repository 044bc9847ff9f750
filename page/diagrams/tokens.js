// The text in tokens: each piece with its id; and the merges that produced the chosen one.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, visible, spoken, count, chip } = GPT.draw;

  GPT.diagram("tokens", {
    mount(element, model) {
      this.model = model;
      this.ranks = new Map(model.tokenizer.tokens.map((bytes, id) => [bytes ? Array.from(bytes).join() : "", id]));
      this.cards = html("div", {
        class: "cards",
        role: "listbox",
        "aria-label": "Tokens of your text",
        "aria-orientation": "horizontal",
      });
      this.merges = html("ol", { class: "merges", "aria-label": "The merges that produced the chosen token" });
      element.append(this.cards, html("h4", {}, "The merges that produced the chosen token"), this.merges);
      GPT.parts.roving(
        this.cards,
        () => Array.from(this.cards.querySelectorAll("button")),
        (token) => GPT.app.set({ token, key: null }),
      );
    },

    update({ pieces, token, text }) {
      const hadFocus = this.cards.contains(document.activeElement);
      const cards = pieces.map((piece, index) =>
        html(
          "button",
          {
            type: "button",
            role: "option",
            class: "card",
            tabindex: index === token ? 0 : -1,
            "aria-selected": String(index === token),
            "aria-label": `${spoken(piece)}, id ${piece.id}`,
            onclick: () => GPT.app.set({ token: index, key: null }),
          },
          html("b", {}, visible(piece, 24)),
          html("small", {}, `${piece.id}`),
        ),
      );
      this.cards.replaceChildren(...GPT.characters.bracket(pieces, cards));
      if (hadFocus) cards[token].focus({ preventScroll: true });
      this.showMerges(pieces[token]);
      const characters = Array.from(text).length;
      if (!characters) return "Your text is empty. The model then reads a single token, the end-of-text token.";
      return [
        `In your text, ${count(characters)} characters make ${count(pieces.length)} tokens. The chosen one, `,
        chip(pieces[token]),
        `, is number ${count(pieces[token].id)} of the vocabulary's ${count(this.model.config.vocab_size)}.`,
      ];
    },

    /** The token's bytes, then the parts after each merge. */
    showMerges(piece) {
      const lines = piece.isEnd ? [] : mergeSteps(piece.bytes, this.ranks);
      this.merges.replaceChildren(
        ...lines.map(({ parts, made }) =>
          html(
            "li",
            {},
            parts.map((bytes, index) =>
              html("span", { class: index === made ? "token is-new" : "token" }, visible(asPiece(bytes))),
            ),
          ),
        ),
      );
      if (lines.length === 1) this.merges.append(html("li", { class: "note" }, "One byte: no merge is needed."));
      if (piece.isEnd) this.merges.append(html("li", { class: "note" }, "It has an id of its own and no letters."));
    },
  });

  function asPiece(bytes) {
    return { bytes, text: new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes)) };
  }

  /** Repeatedly merges the two adjacent parts that spell the entry of lowest id, as the encoding does. Returns
   *  [{ parts, made }]; `made` is the index of the new part. */
  function mergeSteps(bytes, ranks) {
    let parts = bytes.map((byte) => [byte]);
    const steps = [{ parts, made: -1 }];
    for (;;) {
      let [lowest, at] = [Infinity, -1];
      for (let i = 0; i + 1 < parts.length; i += 1) {
        const rank = ranks.get([...parts[i], ...parts[i + 1]].join());
        if (rank < lowest) [lowest, at] = [rank, i];
      }
      if (at < 0) return steps;
      parts = [...parts.slice(0, at), [...parts[at], ...parts[at + 1]], ...parts.slice(at + 2)];
      steps.push({ parts, made: at });
    }
  }
})();
