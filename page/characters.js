// Characters that are cut into several tokens: which tokens make one character. An emoji or a Chinese character has three or
// four bytes, and rare ones are not in the vocabulary, so that every byte may be a token of its own.
//
//   GPT.characters.groups(pieces)              [{ from, to, text }]: tokens from..to - 1 make the character(s) in `text`
//   GPT.characters.bracket(pieces, elements)   the elements of these tokens, with a bracket below those of one character

var GPT = GPT || {};
(() => {
  "use strict";
  const { html } = GPT.draw;
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  const isWhole = (piece) => !piece.text.includes("\ufffd");

  /** Each character of the bytes, as text with its number of bytes. In UTF-8 the bytes after a character's first are 10xxxxxx. */
  function characters(bytes) {
    const starts = bytes.flatMap((byte, at) => (at === 0 || (byte & 0xc0) !== 0x80 ? [at] : []));
    const letters = starts.map((from, i) => {
      const own = bytes.slice(from, starts[i + 1]);
      return { text: utf8.decode(Uint8Array.from(own)), length: own.length };
    });
    return window.Intl?.Segmenter ? joined(letters) : letters;
  }

  /** Joins what is drawn as one sign: a flag, a family, a letter with its accent. */
  function joined(letters) {
    const text = letters.map((letter) => letter.text).join("");
    let at = 0;
    return Array.from(new Intl.Segmenter().segment(text), ({ segment }) => {
      let [used, length] = [0, 0];
      while (used < segment.length) {
        used += letters[at].text.length;
        length += letters[at].length;
        at += 1;
      }
      return { text: segment, length };
    });
  }

  /** The groups of tokens that begin and end between two characters, where one of them is not a whole character by itself. */
  function groups(pieces) {
    if (pieces.every(isWhole)) return [];
    const found = [];
    const signs = characters(pieces.flatMap((piece) => Array.from(piece.bytes)));
    let [from, inTokens, inSigns, text] = [0, 0, 0, ""];
    pieces.forEach((piece, t) => {
      inTokens += piece.bytes.length;
      while (inSigns < inTokens) {
        const { text: sign, length } = signs.shift();
        inSigns += length;
        text += sign;
      }
      if (inSigns > inTokens) return; // this token ends inside a character
      if (!pieces.slice(from, t + 1).every(isWhole)) found.push({ from, to: t + 1, text });
      [from, text] = [t + 1, ""];
    });
    return found;
  }

  /** Puts the elements of each group, one for each token, above a bracket with the character. */
  function bracket(pieces, elements) {
    const all = Array.from(elements);
    for (const { from, to, text } of groups(pieces).reverse()) {
      const sign = text.trim() || text;
      const own = all.slice(from, to);
      own.forEach((element, i) => {
        const name = element.getAttribute("aria-label");
        if (name) element.setAttribute("aria-label", `${name}, part ${i + 1} of ${own.length} of ${sign}`);
      });
      const name = `${own.length} tokens make ${sign}`;
      const group = html(
        "span",
        { class: "character", role: "group", "aria-label": name },
        html("span", { class: "character-parts" }, own),
        html("span", { class: "character-sign", "aria-hidden": "true" }, sign),
      );
      all.splice(from, own.length, group);
    }
    return all;
  }

  GPT.characters = { groups, bracket };
})();
