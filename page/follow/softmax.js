// Follow one number, softmax: from scores to attention weights.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, visible, percent } = GPT.draw;
  const { stops, write, ours } = GPT.follow;

  /** The attended tokens that a scene shows, in the order of the text, and those that it adds up. */
  function shownKeys({ t, weights }, most) {
    const all = Array.from({ length: t + 1 }, (_, s) => s);
    if (all.length <= most) return { keys: all, others: [] };
    const keys = [...all]
      .sort((a, b) => weights[b] - weights[a])
      .slice(0, most - 1)
      .sort((a, b) => a - b);
    return { keys, others: all.filter((s) => !keys.includes(s)) };
  }

  /** A number above 0 of any size: 3.162, 1,850, 2.1e7. */
  function power(value) {
    if (value >= 0.001 && value < 1000) return write(value);
    if (value >= 1000 && value < 1e6) return GPT.draw.count(Math.round(value));
    return value.toExponential(1).replace("-", "−").replace("e+", "e");
  }

  stops.push({
    name: "weight",
    title: "Scores become weights",
    place: "score",
    value: (story) => percent(story.weights[story.s]),
    words: (story) => [
      story.isLast ? "" : "Later tokens are masked. ",
      story.slope ? `ALiBi subtracts ${story.slope.toPrecision(2)} for each token of distance. ` : "",
      "Softmax raises e to each score and divides by the sum of all, so that the weights add up to 100%. The score ",
      ours(story.scores[story.s]),
      " becomes the weight ",
      ours(percent(story.weights[story.s])),
      ", and we now follow the weight.",
    ],
    formula: ({ scores, s, weights }) => {
      const all = scores.reduce((sum, score) => sum + Math.exp(score), 0);
      return [
        html("span", { "data-term": "weight" }, "weight"),
        " = e",
        html("sup", {}, write(scores[s])),
        " / sum = ",
        power(Math.exp(scores[s])),
        " / ",
        power(all),
        " = ",
        ours(percent(weights[s])),
      ];
    },
    draw(scene, story) {
      const { scores, weights, s: strongest, t, T } = story;
      const { keys, others } = shownKeys(story, scene.isNarrow ? 6 : 7);
      const [nameWidth, height, gap] = [scene.isNarrow ? 62 : 104, 26, 8];
      const box = scene.isNarrow ? 54 : 72;
      const x = [nameWidth + 6, nameWidth + box + 12, nameWidth + 2 * box + 18];
      const room = scene.width - x[2] - box - 8;
      const most = Math.max(...scores.map(Math.abs), 0.001);
      const peak = Math.max(...scores);
      ["score", "e^score", "", "weight"].forEach(
        (words, i) =>
          words &&
          scene.text([x[0], x[1], 0, scene.width - box][i] + box / 2, 14, words, {
            anchor: "middle",
            kind: "is-small",
            start: [0, 1.4, 0, 3][i],
          }),
      );
      let y = 24;
      let reached = 0;
      const total = scores.reduce((sum, score) => sum + Math.exp(score), 0);
      const bottom = 24 + (keys.length + (others.length ? 1 : 0) + (T > t + 1 ? 1 : 0)) * (height + gap);
      for (const s of keys) {
        const isOurs = s === strongest;
        scene.token(nameWidth, y, story.pieces[s], isOurs);
        scene.cell({
          x: x[0],
          y,
          width: box,
          height,
          value: scores[s],
          most,
          kind: "product",
          ours: isOurs,
          name: `softmax.score.${s}`,
        });
        scene.cell({
          x: x[1],
          y,
          width: box,
          height,
          value: 0,
          text: power(Math.exp(scores[s])),
          kind: "rest",
          ours: isOurs,
          name: `softmax.exp.${s}`,
          start: 1.5,
        });
        scene.cell({
          x: scene.width - box,
          y,
          width: box,
          height,
          value: weights[s],
          most: 1,
          text: percent(weights[s]),
          kind: "weight",
          ours: isOurs,
          name: `softmax.weight.${s}`,
          start: 3.1,
        });
        bar(scene, {
          x: x[2],
          y,
          height,
          room,
          isOurs,
          lengths: [(0.5 * Math.abs(scores[s])) / most, Math.exp(scores[s] - peak), weights[s]],
          isNegative: scores[s] < 0,
          strip: { y: bottom + 14, from: reached },
        });
        reached += weights[s];
        y += height + gap;
      }
      if (others.length) {
        const rest = others.reduce((sum, s) => sum + weights[s], 0);
        scene.text(nameWidth, y + 18, scene.others(others.length), { anchor: "end", kind: "is-small" });
        scene.cell({
          x: scene.width - box,
          y,
          width: box,
          height,
          value: 0,
          text: percent(rest),
          kind: "rest",
          name: "softmax.weight.rest",
          start: 3.1,
        });
        y += height + gap;
      }
      if (T > t + 1) {
        scene.text(nameWidth, y + 18, visible(story.pieces[t + 1], scene.isNarrow ? 6 : 11), {
          anchor: "end",
          kind: "is-code is-masked",
        });
        scene.cell({ x: x[0], y, width: box, height, value: 0, text: "−∞", kind: "rest", start: 0.6 });
        scene.text(
          x[2],
          y + 18,
          T > t + 2 && !scene.isNarrow
            ? `masked, like the ${T - t - 1 > 2 ? `${T - t - 2} tokens` : "token"} after it`
            : "masked",
          { kind: "is-small", start: 0.6 },
        );
        scene.cell({ x: scene.width - box, y, width: box, height, value: 0, text: "0", kind: "rest", start: 3.1 });
        y += height + gap;
      }
      if (others.length) {
        const rest = {
          x: x[2] + reached * room,
          y: bottom + 18,
          width: Math.max(1, (1 - reached) * room - 1),
          height: height - 8,
        };
        scene.appear(scene.add(svg("rect", { ...rest, rx: 2, class: "follow-bar is-others" })), 4.7);
      }
      scene.text(nameWidth, bottom + 31, "all", { anchor: "end", kind: "is-small", start: 4.2 });
      scene.cell({
        x: x[1],
        y: bottom + 14,
        width: box,
        height,
        value: 0,
        text: power(total),
        kind: "rest",
        name: "softmax.sum",
        start: 2.2,
      });
      scene.appear(
        scene.add(
          svg("rect", { x: x[2], y: bottom + 14, width: room, height, rx: 4, class: "follow-frame" }),
          bottom + 14 + height,
        ),
        4,
      );
      scene.cell({
        x: scene.width - box,
        y: bottom + 14,
        width: box,
        height,
        value: 0,
        text: "100%",
        kind: "rest",
        start: 4.4,
      });
    },
  });

  /** A bar that shows a score, then e to its power, then its weight, and whose copy joins the strip of all weights. */
  function bar(scene, { x, y, height, room, isOurs, lengths: [score, exponential, weight], isNegative, strip }) {
    const element = scene.add(
      svg("rect", { y: y + 4, height: height - 8, rx: 3, class: `follow-bar${isOurs ? " is-ours" : ""}` }),
    );
    const middle = x + room / 2;
    const place = (from, width) => {
      element.setAttribute("x", from);
      element.setAttribute("width", Math.max(0.5, width));
    };
    const start = [isNegative ? middle - score * room : middle, score * room];
    scene.tween(1.4, 1, (p) => place(start[0] + p * (x - start[0]), start[1] + p * (exponential * room - start[1])));
    scene.tween(2.9, 0.9, (p, isOn) => isOn && place(x, room * (exponential + p * (weight - exponential))));
    const copy = scene.add(
      svg("rect", { height: height - 8, rx: 2, class: `follow-bar${isOurs ? " is-ours" : ""} is-part` }),
    );
    copy.setAttribute("width", Math.max(0.5, weight * room - 1));
    scene.tween(4, 0.9, (p, isOn) => {
      copy.setAttribute("x", x + p * strip.from * room);
      copy.setAttribute("y", y + 4 + p * (strip.y - y));
      copy.setAttribute("opacity", isOn ? 1 : 0);
    });
  }

  Object.assign(GPT.follow, { power, shownKeys });
})();
