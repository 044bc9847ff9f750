// What comes next: the model's probabilities after the chosen token.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, best, chip, percent, spoken } = GPT.draw;
  const SHOWN = 8;

  GPT.diagram("next", {
    mount(element) {
      this.context = html("p", { class: "context" });
      this.bars = GPT.parts.bars("The most likely next tokens; press one to append it");
      element.append(this.context, this.bars.element);
    },

    update({ pieces, token, next, text, tokens }) {
      const probs = next(token);
      const ids = best(probs, SHOWN);
      const isLast = token === tokens.length - 1;
      this.context.replaceChildren(...pieces.slice(Math.max(0, token - 11), token + 1).map(chip), html("b", {}, " ?"));
      const rest = 1 - ids.reduce((sum, id) => sum + probs[id], 0);
      const most = probs[ids[0]];
      const items = [
        ...ids.map(GPT.app.piece).map((piece) => ({
          label: chip(piece),
          fraction: probs[piece.id] / most,
          text: percent(probs[piece.id]),
          isMarked: !isLast && piece.id === tokens[token + 1],
          title: isLast ? `append ${spoken(piece)}` : null,
          onclick:
            isLast && !piece.isEnd && !piece.text.includes("\ufffd") ? () => GPT.app.write(text + piece.text) : null,
        })),
        { label: html("span", { class: "note" }, "all others"), fraction: null, text: percent(rest) },
      ];
      this.bars.show(items, { most, text: (part) => `${Number((100 * part).toPrecision(3))}%` });
      const sentence = [
        "After ",
        chip(pieces[token]),
        " the model expects ",
        chip(GPT.app.piece(ids[0])),
        ` with a probability of ${percent(probs[ids[0]])}.`,
      ];
      if (isLast) return [...sentence, " Press a bar to append its token; the model continues from there."];
      const rank = probs.reduce((higher, p) => higher + (p > probs[tokens[token + 1]] ? 1 : 0), 1);
      return [
        ...sentence,
        " In your text the next token is ",
        chip(pieces[token + 1]),
        `, with a probability of ${percent(probs[tokens[token + 1]])} and rank ${rank}.`,
      ];
    },
  });
})();
