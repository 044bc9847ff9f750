// The residual stream of the chosen token: its values after each part, and the size of each correction.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, number, row, length } = GPT.draw;

  GPT.diagram("stream", {
    mount(element) {
      this.strips = GPT.parts.strips("The residual stream of the chosen token, after each part", "stream");
      this.bars = GPT.parts.bars("The length of each correction and of the stream");
      element.append(
        this.strips.element,
        html("h4", {}, "The length of each correction and of the stream after it"),
        this.bars.element,
      );
    },

    update({ pieces, token, trace }) {
      const start = row(trace.embedded, token);
      const parts = trace.layers.flatMap((inside, layer) => [
        {
          name: `${layer + 1} attention`,
          layer,
          part: "attention",
          added: row(inside.attentionOut, token),
          stream: row(inside.afterAttention, token),
        },
        {
          name: `${layer + 1} feed-forward`,
          layer,
          part: "feed-forward network",
          added: row(inside.feedForwardOut, token),
          stream: row(inside.output, token),
        },
      ]);
      this.strips.show(
        [{ name: "embedding", stream: start }, ...parts].map(({ name, stream }) => ({ label: name, values: stream, isRooted: true })),
        (c) =>
          `Number ${c + 1} of ${start.length}: ${number(start[c])} at the beginning, ${number(parts[parts.length - 1].stream[c])} at the end.`,
      );
      const most = Math.max(
        length(start),
        ...parts.map(({ added, stream }) => Math.max(length(added), length(stream))),
      );
      this.bars.show([
        { label: "embedding", fraction: 0, behind: length(start) / most, text: number(length(start)) },
        ...parts.map(({ name, added, stream }) => ({
          label: name,
          fraction: length(added) / most,
          behind: length(stream) / most,
          text: `+${number(length(added))} → ${number(length(stream))}`,
          colour: "stream",
        })),
      ], { most, text: String });
      const strongest = parts.reduce((a, b) => (length(b.added) > length(a.added) ? b : a));
      const lengths = [start, ...parts.map(({ stream }) => stream)].map(length);
      const shorter = parts.filter((_, i) => lengths[i + 1] < lengths[i]).length;
      return [
        "In your text, the stream of ",
        chip(pieces[token]),
        ` begins with length ${number(length(start))} and ends with ${number(length(parts[parts.length - 1].stream))}. ` +
          `The longest correction, ${number(length(strongest.added))}, comes from the ${strongest.part} of layer ${strongest.layer + 1}. ` +
          `Of the ${parts.length} corrections, ${shorter || "none"} ${shorter > 1 ? "make" : "makes"} the stream shorter.`,
      ];
    },
  });
})();
