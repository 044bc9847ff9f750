// Follow one number: the weighted sum of the values, and all heads together.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, chip, percent, largest, row } = GPT.draw;
  const { stops, write, rounded, dotProduct, runningSum, symbol, matrix, ours, shownKeys } = GPT.follow;

  stops.push({
    name: "values",
    title: "The weighted sum of the values",
    place: "value",
    value: (story) => write(story.head[story.e]),
    words: (story) => [
      "A third matrix made a value of every token. The values are added, each times its weight; ours, ",
      ours(percent(story.weights[story.s])),
      ", multiplies the value of ",
      story.s === story.t ? "the token itself" : chip(story.pieces[story.s]),
      `. We now follow the sum that number ${story.e + 1} of the product went into: `,
      ours(story.head[story.e]),
      ".",
    ],
    formula: ({ e, head }) => [
      "out",
      html("sub", {}, String(e + 1)),
      " = Σ ",
      html("span", { "data-term": "weight" }, "weight"),
      " × ",
      symbol("v", "v", e + 1),
      " = ",
      ours(head[e]),
    ],
    draw(scene, story) {
      const { weights, e, D, s: strongest, head } = story;
      const { keys, others } = shownKeys(story, scene.isNarrow ? 6 : 7);
      const [nameWidth, height, gap] = [scene.isNarrow ? 58 : 104, 26, 8];
      const box = scene.isNarrow ? 52 : 74;
      const strip = scene.isNarrow ? 0 : scene.width - nameWidth - 3 * (box + 22) - 30;
      const x = {
        weight: nameWidth + 6,
        strip: nameWidth + box + 24,
        value: nameWidth + box + 24 + (strip ? strip + 22 : 0),
      };
      x.part = x.value + box + 22;
      scene.text(x.weight + box / 2, 14, "weight", { anchor: "middle", kind: "is-small" });
      if (strip)
        scene.text(x.strip + strip / 2, 14, `value: ${D} numbers`, { anchor: "middle", kind: "is-small is-v" });
      scene.text(x.value + box / 2, 14, `number ${e + 1}`, { anchor: "middle", kind: "is-small is-v" });
      scene.text(x.part + box / 2, 14, "product", { anchor: "middle", kind: "is-small", start: 1 });
      const most = largest(...keys.map((s) => story.value(s)));
      const written = keys.map((s) => rounded(weights[s] * story.value(s)[e]));
      const rest = rounded(head[e]) - written.reduce((all, one) => all + one, 0);
      const bottom = 24 + (keys.length + (others.length ? 1 : 0)) * (height + gap) + 16;
      const parts = [];
      keys.forEach((s, i) => {
        const [y, isOurs, value] = [24 + i * (height + gap), s === strongest, story.value(s)];
        scene.token(nameWidth, y, story.pieces[s], isOurs);
        scene.cell({
          x: x.weight,
          y,
          width: box,
          height,
          value: weights[s],
          most: 1,
          text: percent(weights[s]),
          kind: "weight",
          ours: isOurs,
          name: `values.weight.${s}`,
        });
        if (strip) {
          scene.text(x.strip - 11, y + 18, "×", { anchor: "middle", kind: "is-sign" });
          const image = scene.picture({ values: value, columns: D, most, colour: "value", x: x.strip, y, width: strip, height });
          scene.tween(0.8 + 0.15 * i, 0.8, (p) => {
            const tall = height * (1 - p * (1 - Math.max(0.08, weights[s] / weights[strongest])));
            image.setAttribute("height", tall);
            image.setAttribute("y", y + (height - tall) / 2);
          });
          scene.add(svg("rect", { x: x.strip + (e * strip) / D, y, width: strip / D, height, class: "follow-spot" }));
          flyingStrip(scene, image, { y, to: bottom, start: 2.4 + 0.15 * i });
        }
        scene.cell({ x: x.value, y, width: box, height, value: value[e], most, kind: "v", name: `values.value.${s}` });
        scene.text(x.part - 11, y + 18, "=", { anchor: "middle", kind: "is-sign", start: 1 });
        parts.push(
          scene.cell({
            x: x.part,
            y,
            width: box,
            height,
            value: weights[s] * value[e],
            most,
            kind: "v",
            ours: isOurs,
            name: `values.part.${s}`,
            start: 1.2 + 0.15 * i,
          }),
        );
      });
      if (others.length) {
        const y = 24 + keys.length * (height + gap);
        scene.text(nameWidth, y + 18, scene.others(others.length), { anchor: "end", kind: "is-small" });
        scene.cell({
          x: x.weight,
          y,
          width: box,
          height,
          value: 0,
          text: percent(others.reduce((all, s) => all + weights[s], 0)),
          kind: "rest",
        });
        parts.push(
          scene.cell({
            x: x.part,
            y,
            width: box,
            height,
            value: rest,
            most,
            kind: "rest",
            name: "values.part.rest",
            start: 1.2 + 0.15 * keys.length,
          }),
        );
      }
      scene.text(nameWidth, bottom + 18, "sum", { anchor: "end", kind: "is-label is-v" });
      if (strip) {
        scene.appear(
          scene.picture({ values: head, columns: D, most: largest(head), colour: "value", x: x.strip, y: bottom, width: strip, height }),
          3.4,
        );
        scene.appear(
          scene.add(
            svg("rect", { x: x.strip + (e * strip) / D, y: bottom, width: strip / D, height, class: "follow-spot" }),
          ),
          3.4,
        );
      }
      const total = scene.cell({
        x: x.part,
        y: bottom,
        width: box,
        height,
        value: head[e],
        most,
        kind: "v",
        ours: true,
        name: "values.total",
        start: 2.4,
      });
      parts.forEach((part, i) => scene.send(part, total.at.x, total.at.y, 2.4 + 0.15 * i, 0.7));
    },
  });

  function flyingStrip(scene, image, { y, to, start }) {
    const copy = scene.add(image.cloneNode());
    scene.tween(start, 0.9, (p, isOn) => {
      copy.setAttribute("opacity", isOn && p < 1 ? 0.7 * (1 - 0.6 * p) : 0);
      copy.setAttribute("y", y + p * (to - y));
    });
  }

  stops.push({
    name: "heads",
    title: "All heads, and back to our number",
    place: "out",
    value: (story) => write(story.attentionOut[story.c]),
    words: (story) => [
      story.H > 1
        ? `All ${story.H} heads do this side by side, and their sums are joined. `
        : "This model has one head. ",
      `Row ${story.c + 1} of `,
      matrix("out"),
      " makes one number of that. We now follow this sum, which our product went into and attention adds to x: ",
      ours(story.attentionOut[story.c]),
      ".",
    ],
    formula: ({ c, attentionOut, outBias }) => [
      "attention = ",
      matrix("out"),
      `[${c + 1}] · (`,
      symbol("v", "heads"),
      ")",
      outBias !== null && " + b",
      " = ",
      ours(attentionOut[c]),
    ],
    draw(scene, story) {
      const { h, D, e, H, headParts, outRow, gathered, c } = story;
      const { end } = dotProduct(scene, {
        y: 14,
        ours: e,
        kind: "v",
        name: "head",
        total: headParts[h],
        label: `= head ${h + 1}`,
        a: {
          label: `sum, head ${h + 1}`,
          values: gathered.subarray(h * D, (h + 1) * D),
          kind: "v",
          name: "head.gathered",
        },
        b: {
          label: scene.isNarrow ? `row ${c + 1} of W_out` : `W_out row ${c + 1}`,
          values: outRow.subarray(h * D, (h + 1) * D),
          kind: "other",
          name: "head.weight",
        },
      });
      const y = scene.height + (scene.isNarrow ? 44 : 34);
      const heads = scene.window(h, H, scene.isNarrow ? 4 : 8);
      const rest =
        H > heads.length
          ? rounded(story.attentionOut[c]) -
            rounded(story.outBias || 0) -
            heads.reduce((all, head) => all + rounded(headParts[head]), 0)
          : null;
      heads.forEach((head, place) =>
        scene.text(scene.x(place) + scene.cellWidth / 2, y - 6, `head ${head + 1}`, {
          anchor: "middle",
          kind: head === h ? "is-small is-strong" : "is-small",
          start: end,
        }),
      );
      const line = scene.row(y, {
        label: scene.isNarrow ? "" : "all heads",
        columns: heads,
        values: headParts,
        rest,
        kind: "v",
        ours: h,
        name: "heads.part",
        start: end + 0.1,
        every: 0.15,
      });
      runningSum(scene, {
        y: y + scene.step,
        start: end + 0.6 + 0.15 * heads.length,
        cells: [...line.cells, line.rest],
        bias: story.outBias,
        total: story.attentionOut[c],
        label: scene.isNarrow ? "attention adds" : "attention adds this",
        kind: "x",
        name: "heads",
      });
    },
  });
})();
