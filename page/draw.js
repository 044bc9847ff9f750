// Drawing helpers for all diagrams: elements, numbers as text, colours, and the display of tokens.

var GPT = GPT || {};
(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";

  /** An HTML element: html("p", { class: "note", onclick: f }, "text", another). Attributes that are false or null are left out. */
  const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

  /** The same for SVG. */
  const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (typeof value === "function") element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(
      ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
    );
    return element;
  }

  /** A number with two decimals and a true minus: −0.42. */
  function number(value, digits = 2) {
    if (value === -Infinity) return "−∞";
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  }

  /** A fraction as a percentage with one decimal: 34.2%. */
  const percent = (fraction) => (fraction > 0 && fraction < 0.0005 ? "<0.1%" : `${(100 * fraction).toFixed(1)}%`);

  /** A whole number with commas: 1,071,616. */
  const count = (whole) => whole.toLocaleString("en-US");

  /** 1 token, 2 tokens */
  const things = (many, word) => `${count(many)} ${word}${many === 1 ? "" : "s"}`;

  /** "a, b and c" */
  const list = (words) =>
    words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`;

  /** A token as visible text: · is a space, ↵ a line break; bytes are shown in hex if they are not a whole character. */
  function visible(piece, longest = Infinity) {
    if (piece.isEnd) return longest < 9 ? "end" : "end of text";
    const text = piece.text.includes("\ufffd")
      ? piece.bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ")
      : piece.text
          .replace(/ /g, "·")
          .replace(/\n/g, "↵")
          .replace(/\t/g, "⇥")
          .replace(/[\u0000-\u001f\u007f]/g, "␀");
    const letters = Array.from(text);
    return letters.length > longest ? `${letters.slice(0, longest - 1).join("")}…` : text;
  }

  /** A token as words for a screen reader. */
  function spoken(piece) {
    if (piece.isEnd) return "end of text";
    if (piece.text.includes("\ufffd")) return `bytes ${visible(piece)}`;
    const words = piece.text.trim() || piece.text.replace(/\n/g, "line break ").replace(/ /g, "space ").trim();
    return piece.text.startsWith(" ") && piece.text.trim() ? `space ${words}` : words;
  }

  /** A token in a sentence. */
  const chip = (piece) => html("span", { class: "token" }, visible(piece, 24));

  /** The ids of the `most` largest values, in descending order. */
  function best(values, most) {
    const kept = [];
    for (let id = 0; id < values.length; id += 1) {
      if (kept.length === most && values[id] <= values[kept[most - 1]]) continue;
      let at = kept.length;
      while (at > 0 && values[kept[at - 1]] < values[id]) at -= 1;
      kept.splice(at, 0, id);
      kept.length = Math.min(kept.length, most);
    }
    return kept;
  }

  /** Row i of a matrix whose rows have `width` numbers, as a view. */
  const row = (matrix, i, width = matrix.shape[matrix.shape.length - 1]) => matrix.subarray(i * width, (i + 1) * width);

  /** The length of a vector. */
  const length = (vector) => Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));

  /** The largest absolute value, used as the end of a colour scale. */
  const largest = (...vectors) => vectors.reduce((most, v) => v.reduce((m, x) => Math.max(m, Math.abs(x)), most), 1e-9);

  const schemes = ["(prefers-color-scheme: dark)", "print"].map((query) => matchMedia(query));
  const palettes = new Map(); // scheme and name of the colour above 0 -> colours: reading them takes longer than painting

  /** The page's current colours, light or dark, as [red, green, blue], for canvases. `plus` names the colour of numbers above
   *  0: query, key, value, stream or accent. */
  function palette(plus = "accent") {
    const key = `${schemes.map(({ matches }) => matches)} ${plus}`;
    if (!palettes.has(key)) palettes.set(key, readPalette(plus));
    return palettes.get(key);
  }

  function readPalette(plus) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => {
      const hex = style.getPropertyValue(`--${name}`).trim().slice(1);
      return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
    };
    const named = Object.fromEntries(["query", "key", "value", "stream", "minus"].map((name) => [name, colour(name)]));
    return { ...named, none: colour("panel"), plus: colour(plus) };
  }

  /** Paints numbers row by row, one pixel each: the colour is stronger for larger absolute values, and blue below 0. */
  function paint(canvas, values, columns, most, colours = palette()) {
    const rows = Math.ceil(values.length / columns);
    Object.assign(canvas, { width: columns, height: rows });
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    for (let i = 0; i < values.length; i += 1) {
      const part = Math.min(1, Math.abs(values[i]) / most);
      const to = values[i] < 0 ? colours.minus : colours.plus;
      for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = colours.none[c] + part * (to[c] - colours.none[c]);
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  /** How strongly an attention weight is coloured, from 0 to 1: the square root of its part of the largest weight of its row.
   *  So a row of a hundred small weights is as legible as a row of two large ones, and small weights can be distinguished. */
  const shade = (weight, most) => (most > 0 ? Math.sqrt(weight / most) : 0);

  /** The shades of a matrix of attention weights, row by row. */
  function shades(weights, columns) {
    const found = new Float32Array(weights.length);
    for (let at = 0; at < weights.length; at += columns) {
      const most = weights.subarray(at, at + columns).reduce((a, b) => Math.max(a, b), 0);
      for (let i = at; i < Math.min(at + columns, weights.length); i += 1) found[i] = shade(weights[i], most);
    }
    return found;
  }

  GPT.draw = {
    html,
    svg,
    number,
    percent,
    count,
    things,
    list,
    visible,
    spoken,
    chip,
    best,
    row,
    length,
    largest,
    palette,
    paint,
    shade,
    shades,
  };
})();
