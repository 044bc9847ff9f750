// Draws the map: streams, the attention between them, the feed-forward corrections, and the fan to the next tokens. It knows
// nothing about models: a scene holds numbers and places. `u` runs along the streams and `v` across them, so that the same
// code draws from left to right, and from top to bottom on a phone. All elements are kept and changed, never made anew.
//
//   const picture = GPT.map.picture(svg, (line) => ...);      the function: a line was pressed
//   picture.draw(scene)    { isUpright, lines: [v], chosen, stops: [u], lengths: [[...] per line], columns, nodes, fan }
//   picture.pulse()        a light runs along all streams

(() => {
  "use strict";
  const { svg } = GPT.draw;
  const SHADES = [0.06, 0.16, 0.34]; // the other tokens' attention is drawn in three shades: above these parts of the largest
  const THINNEST = 1.3;
  const THICKEST = 11;

  const thick = (part) => THINNEST + (THICKEST - THINNEST) * part; // of a stream, in pixels
  const short = (x) => Math.round(x * 10) / 10;

  /** Elements of one kind inside a group: pool(count) returns exactly so many of them. */
  function pool(parent, tag, attributes) {
    const nodes = [];
    return (count) => {
      while (nodes.length < count) parent.appendChild(nodes[nodes.push(svg(tag, attributes)) - 1]);
      while (nodes.length > count) nodes.pop().remove();
      return nodes;
    };
  }

  function change(node, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
      const text = String(value);
      if (node.getAttribute(name) !== text) node.setAttribute(name, text);
    }
  }

  /** A point, and a curve between two lines that leaves and arrives in the direction of the streams. */
  const point = (isUpright, u, v) => (isUpright ? `${short(v)} ${short(u)}` : `${short(u)} ${short(v)}`);
  function bend(isUpright, u0, v0, u1, v1) {
    const middle = (u0 + u1) / 2;
    return `C${point(isUpright, middle, v0)} ${point(isUpright, middle, v1)} ${point(isUpright, u1, v1)}`;
  }
  const curve = (isUpright, u0, v0, u1, v1) =>
    `M${point(isUpright, u0, v0)}${bend(isUpright, u0, v0, u1, v1)}`;

  /** A stream: a band around the line at v, as thick as `halves` (half of it) at each stop. */
  function band(isUpright, stops, v, halves) {
    let path = `M${point(isUpright, stops[0], v - halves[0])}`;
    for (let k = 1; k < stops.length; k += 1) {
      path += bend(isUpright, stops[k - 1], v - halves[k - 1], stops[k], v - halves[k]);
    }
    const last = stops.length - 1;
    path += `L${point(isUpright, stops[last], v + halves[last])}`;
    for (let k = last; k > 0; k -= 1) path += bend(isUpright, stops[k], v + halves[k], stops[k - 1], v + halves[k - 1]);
    return `${path}Z`;
  }

  GPT.map.picture = (root, onpress) => {
    const names = ["columns", "others", "streams", "own", "fan", "nodes", "pulses", "hits"];
    const groups = Object.fromEntries(names.map((name) => [name, svg("g", { class: `map-${name}` })]));
    root.append(...Object.values(groups));
    const rects = pool(groups.columns, "rect", { rx: 7 });
    const others = pool(groups.others, "path", {});
    const streams = pool(groups.streams, "path", {});
    const own = pool(groups.own, "path", {});
    const fan = pool(groups.fan, "path", {});
    const nodes = pool(groups.nodes, "circle", {});
    const pulses = pool(groups.pulses, "path", { pathLength: 100 });
    const hits = pool(groups.hits, "path", {});
    let [scene, running] = [null, []];

    function draw(given) {
      scene = given;
      drawColumns();
      drawOthers();
      drawStreams();
      drawOwn();
      drawNodes();
      drawFan();
    }

    /** A pale field behind each head's column; the chosen one is lit. */
    function drawColumns() {
      const { isUpright, columns, across } = scene;
      const [from, to] = across;
      rects(columns.length).forEach((rect, i) => {
        const { u, width, isChosen } = columns[i];
        const [x, y, w, h] = isUpright ? [from, u, to - from, width] : [u, from, width, to - from];
        change(rect, { x: short(x), y: short(y), width: short(w), height: short(h), class: isChosen ? "is-chosen" : "" });
      });
    }

    /** The attention of the tokens that are not chosen: a few shades, each one path for each head. */
    function drawOthers() {
      const { isUpright, columns, lines, chosen, most } = scene;
      const paths = others(columns.length * SHADES.length);
      columns.forEach(({ u, width, weights, isChosen }, c) => {
        const drawn = SHADES.map(() => "");
        for (let i = 0; i < lines.length; i += 1) {
          if (i === chosen) continue;
          for (let j = 0; j < i; j += 1) {
            const part = weights[i * lines.length + j] / most;
            const shade = part > SHADES[2] ? 2 : part > SHADES[1] ? 1 : part > SHADES[0] ? 0 : -1;
            if (shade >= 0) drawn[shade] += curve(isUpright, u, lines[j], u + width, lines[i]);
          }
        }
        drawn.forEach((d, shade) =>
          change(paths[c * SHADES.length + shade], { d, class: `shade-${shade}${isChosen ? " is-chosen" : ""}` }),
        );
      });
    }

    /** The streams: one band for each token, as thick as its residual stream is long. */
    function drawStreams() {
      const { isUpright, lines, chosen, stops, lengths, gathered } = scene;
      const longest = Math.max(...lengths.flat(), 1e-9);
      const half = (length) => thick(length / longest) / 2;
      const [bands, lights, wide] = [streams(lines.length), pulses(lines.length), hits(lines.length)];
      lines.forEach((v, i) => {
        const halves = lengths[i].map(half);
        if (i !== chosen) halves[halves.length - 1] = 0.3; // only the chosen stream goes on to the next tokens
        change(bands[i], {
          d: band(isUpright, stops, v, halves),
          class: i === chosen ? "is-chosen" : i < gathered ? "is-gathered" : "",
          "data-lengths": lengths[i].map((length) => length.toFixed(3)).join(" "),
        });
        const straight = `M${point(isUpright, stops[0], v)}L${point(isUpright, stops[stops.length - 1], v)}`;
        change(lights[i], { d: straight, class: i === chosen ? "is-chosen" : "" });
        change(wide[i], { d: straight, "data-line": i });
      });
    }

    /** What the chosen token reads: one curve from each line, in each head. */
    function drawOwn() {
      const { isUpright, columns, lines, chosen, most } = scene;
      const count = chosen + 1;
      const paths = own(columns.length * count);
      columns.forEach(({ u, width, weights, name, isChosen }, c) => {
        for (let j = 0; j < count; j += 1) {
          const weight = weights[chosen * lines.length + j];
          const part = Math.min(1, weight / most);
          change(paths[c * count + j], {
            d: curve(isUpright, u, lines[j], u + width, lines[chosen]),
            "stroke-width": short(0.4 + 5.6 * part),
            "stroke-opacity": part < 0.015 ? 0 : short(10 * Math.min(1, 0.12 + 0.88 * Math.sqrt(part))) / 10,
            "data-weight": weight.toFixed(6),
            "data-column": name,
            class: isChosen ? "is-chosen" : "",
          });
        }
      });
    }

    /** The feed-forward networks: on each line a disc as large as the correction that they add. */
    function drawNodes() {
      const { isUpright, lines, chosen, nodes: given, largestDisc } = scene;
      const longest = Math.max(...given.flatMap(({ lengths }) => lengths), 1e-9);
      const discs = nodes(given.length * lines.length);
      given.forEach(({ u, lengths }, k) =>
        lines.forEach((v, i) => {
          const [cx, cy] = isUpright ? [v, u] : [u, v];
          change(discs[k * lines.length + i], {
            cx: short(cx),
            cy: short(cy),
            r: short(1.5 + (largestDisc - 1.5) * Math.sqrt(lengths[i] / longest)),
            class: i === chosen ? "is-chosen" : "",
            "data-length": lengths[i].toFixed(3),
          });
        }),
      );
    }

    /** The end: the chosen stream opens into the next tokens, in proportion to their probabilities. */
    function drawFan() {
      const { isUpright, lines, chosen, lengths, fan: { from, to, width, targets } } = scene;
      const longest = Math.max(...lengths.flat(), 1e-9);
      const thickness = thick(lengths[chosen][lengths[chosen].length - 1] / longest);
      let at = lines[chosen] - thickness / 2;
      fan(targets.length).forEach((path, i) => {
        const { v, probability } = targets[i];
        const half = (probability * thickness) / 2;
        const [start, end] = [at + half, Math.max((probability * width) / 2, 0.6)];
        at += 2 * half;
        change(path, {
          d:
            `M${point(isUpright, from, start - half)}${bend(isUpright, from, start - half, to, v - end)}` +
            `L${point(isUpright, to, v + end)}${bend(isUpright, to, v + end, from, start + half)}Z`,
          class: i === targets.length - 1 ? "is-rest" : "",
          "data-probability": probability.toFixed(6),
        });
      });
    }

    /** A light runs along the streams, once, and the strongest curve of each head swells when it passes. */
    function pulse(milliseconds) {
      for (const animation of running) animation.cancel();
      running = [];
      if (!scene || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
      const light = [{ strokeDashoffset: 8 }, { strokeDashoffset: -100 }];
      for (const path of pulses(scene.lines.length)) {
        running.push(path.animate(light, { duration: milliseconds, easing: "ease-in-out" }));
      }
      const count = scene.chosen + 1;
      const curves = own(scene.columns.length * count);
      const [first, last] = [scene.stops[0], scene.stops[scene.stops.length - 1]];
      scene.columns.forEach(({ u }, c) => {
        const head = curves.slice(c * count, (c + 1) * count);
        const strongest = head.reduce((a, b) => (Number(b.dataset.weight) > Number(a.dataset.weight) ? b : a));
        const width = Number(strongest.getAttribute("stroke-width"));
        const delay = (0.9 * milliseconds * (u - first)) / (last - first);
        const swell = [width, width + 4, width].map((strokeWidth) => ({ strokeWidth: String(strokeWidth) }));
        running.push(strongest.animate(swell, { duration: 0.35 * milliseconds, delay }));
      });
    }

    groups.hits.addEventListener("click", ({ target }) => onpress(Number(target.dataset.line)));
    return { draw, pulse };
  };

  /** The mascot hums while the model runs. */
  GPT.map.hum = (image, milliseconds) => {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const hum = [0, -2, 2, -2, 2, -1, 1, 0].map((angle) => ({
      transform: `rotate(${angle}deg)`,
      filter: angle ? "drop-shadow(0 0 7px var(--stream))" : "none",
    }));
    image.animate(hum, { duration: milliseconds / 2, iterations: 2 });
  };
})();
