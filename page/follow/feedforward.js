// Follow one number, the stops of the residual stream and the feed-forward network.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg } = GPT.draw;
  const { stops, write, addition, dotProduct, symbol, matrix, ours, bracket } = GPT.follow;

  stops.push({
    name: "stream",
    title: "Added to the stream",
    place: "add",
    value: (story) => write(story.middle[story.c]),
    words: ({ x, attentionOut, middle, c }) => [
      "Attention does not replace the vector: its result is added to it. Our number was ",
      write(x[c]),
      ", attention adds ",
      ours(attentionOut[c]),
      ", and now it is ",
      ours(middle[c]),
      ".",
    ],
    formula: ({ x, attentionOut, middle, c }) => [
      symbol("x", "x"),
      " + attention: ",
      write(x[c]),
      " + ",
      bracket(attentionOut[c]),
      " = ",
      ours(middle[c]),
    ],
    draw(scene, { x, attentionOut, middle, c, C }) {
      addition(scene, {
        y: 14,
        columns: scene.window(c, C),
        count: C,
        ours: c,
        rows: [
          { label: "x", values: x, name: "add.x" },
          { label: "+ attention", values: attentionOut, kind: "v", name: "add.attention" },
          { label: "= x, updated", values: middle, name: "add.middle" },
        ],
      });
    },
  });

  stops.push({
    name: "hidden",
    title: "Feed-forward: up, and through a curve",
    place: "up",
    value: (story) => write(story.hidden[story.u]),
    words: (story) => [
      `After another norm, the vector is multiplied by ${GPT.draw.count(story.hidden.length)} rows: the hidden numbers. Number ${story.u + 1} will change ours most; its sum is ${write(story.before)}. The activation function turns that into `,
      story.isGated ? `${write(story.bent)}, and a second matrix multiplies it by ${write(story.gated)}: ` : "",
      ours(story.hidden[story.u]),
      ".",
    ],
    formula: (story) => [
      "hidden",
      html("sub", {}, String(story.u + 1)),
      ` = ${functionName(story)}(`,
      matrix(story.isGated ? "gate" : "up"),
      `[${story.u + 1}] · norm(`,
      symbol("x", "x"),
      ")",
      story.upBias !== null && " + b",
      ")",
      story.isGated && [" × ", bracket(story.gated)],
      " = ",
      ours(story.hidden[story.u]),
    ],
    draw(scene, story) {
      const { c, u } = story;
      const { end } = dotProduct(scene, {
        y: 14,
        ours: c,
        kind: "other",
        name: "up",
        bias: story.upBias,
        total: story.before,
        label: story.isGated ? "the gate" : "before the curve",
        a: { label: "norm(x)", values: story.normed2, name: "up.x", follow: true },
        b: {
          label: scene.isNarrow
            ? `row ${u + 1} of ${story.isGated ? "W_gate" : "W_up"}`
            : `${story.isGated ? "W_gate" : "W_up"} row ${u + 1}`,
          values: story.upRow,
          kind: "other",
          name: "up.weight",
        },
      });
      curve(scene, { y: scene.height + 18, start: end, story });
    },
  });

  const functionName = ({ model }) => ({ relu: "ReLU", swiglu: "SiLU" })[model.config.activation] || "GELU";

  /** The activation function with the point of the hidden number on it. */
  function curve(scene, { y, start, story }) {
    const f = GPT.maths.activations[story.model.config.activation];
    const [width, height] = [scene.isNarrow ? Math.min(200, scene.width * 0.55) : 300, scene.isNarrow ? 96 : 110];
    const reach = Math.max(3, 1.2 * Math.abs(story.before));
    const [low, high] = [Math.min(-0.4, -0.08 * reach), reach];
    const [left, scaleX, scaleY] = [scene.left, width / (2 * reach), height / (high - low)];
    const at = (x) => [left + (x + reach) * scaleX, y + (high - f(x)) * scaleY];
    const zero = y + high * scaleY;
    scene.line(left, zero, left + width, zero);
    scene.line(left + width / 2, y, left + width / 2, y + height);
    const points = Array.from({ length: 81 }, (_, i) =>
      at(-reach + (i * reach) / 40)
        .map((value) => value.toFixed(1))
        .join(","),
    );
    scene.add(svg("polyline", { points: points.join(" "), class: "follow-curve" }), y + height + 4);
    if (!scene.isNarrow)
      scene.text(scene.left - 12, y + height / 2 + 5, `${functionName(story)} curve`, {
        anchor: "end",
        kind: "is-label",
      });
    const dot = scene.add(svg("circle", { r: 7, class: "follow-dot is-ours" }));
    const drop = scene.add(svg("line", { class: "follow-line is-ours" }));
    const [x, top] = at(story.before);
    scene.tween(start + 0.2, 0.9, (p, isOn) => {
      Object.entries({ cx: x, cy: zero + p * (top - zero), opacity: isOn ? 1 : 0 }).forEach(([name, value]) =>
        dot.setAttribute(name, value),
      );
      Object.entries({ x1: x, x2: x, y1: zero, y2: zero + p * (top - zero), opacity: isOn ? 1 : 0 }).forEach(
        ([name, value]) => drop.setAttribute(name, value),
      );
    });
    const right = left + width + (scene.isNarrow ? 16 : 36);
    const box = scene.isNarrow ? 72 : 84;
    const lines = story.isGated
      ? [
          [`${write(story.before)} becomes`, story.bent, "up.bent", false],
          [`× ${write(story.gated)} =`, story.hidden[story.u], "up.hidden", true],
        ]
      : [[`${write(story.before)} becomes`, story.hidden[story.u], "up.hidden", true]];
    lines.forEach(([words, value, name, isOurs], i) => {
      scene.text(right, y + 14 + i * 58, words, { kind: "is-small", start: start + 0.9 + i * 0.5 });
      scene.cell({
        x: right,
        y: y + 22 + i * 58,
        width: box,
        value,
        kind: "other",
        ours: isOurs,
        name,
        start: start + 1 + i * 0.5,
      });
    });
  }

  stops.push({
    name: "block 1",
    title: "Feed-forward: down, and added",
    place: "down",
    value: (story) => write(story.output[story.c]),
    words: (story) => [
      `Row ${story.c + 1} of `,
      matrix("down"),
      ` adds up all ${GPT.draw.count(story.hidden.length)} hidden numbers, each times a weight: `,
      ours(story.feedForwardOut[story.c]),
      `. That is added to our number, ${write(story.middle[story.c])}. Block 1 ends with `,
      ours(story.output[story.c]),
      ".",
    ],
    formula: ({ middle, feedForwardOut, output, c }) => [
      symbol("x", "x"),
      " + feed-forward: ",
      write(middle[c]),
      " + ",
      bracket(feedForwardOut[c]),
      " = ",
      ours(output[c]),
    ],
    draw(scene, story) {
      const { u, c, hidden, downRow, middle, feedForwardOut, output } = story;
      const { end } = dotProduct(scene, {
        y: 14,
        ours: u,
        kind: "x",
        name: "down",
        bias: story.downBias,
        total: feedForwardOut[c],
        label: story.downBias === null ? "= feed-forward" : "feed-forward adds",
        a: { label: "hidden", values: hidden, kind: "other", name: "down.hidden" },
        b: {
          label: scene.isNarrow ? `row ${c + 1} of W_down` : `W_down row ${c + 1}`,
          values: downRow,
          kind: "other",
          name: "down.weight",
        },
      });
      const y = scene.height + (scene.isNarrow ? 30 : 26);
      const start = end + 0.4;
      scene.label(y, "x + feed-forward", { kind: "is-x", start });
      [
        [middle[c], "down.middle"],
        [feedForwardOut[c], "down.added"],
        [output[c], "down.output"],
      ].forEach(([value, name], i) => {
        const x = scene.x(0) + i * (scene.cellWidth + 26);
        if (i)
          scene.text(x - 13, y + 20, ["", "+", "="][i], { anchor: "middle", kind: "is-sign", start: start + 0.4 * i });
        scene.cell({ x, y, value, kind: "x", ours: true, name, start: start + 0.4 * i });
      });
    },
  });
})();
