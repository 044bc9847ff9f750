// Text to token ids and back, exactly as src/transformer/text does it in Python.
//
//   "low fürs"  --pieces, by a regular expression-->  "low", " fürs"  --UTF-8-->  bytes  --merges-->  ids
//
// A byte-pair encoding is a list of byte strings; a string's index is its id and its rank. Inside a piece, the two adjacent
// tokens that together spell the string of lowest rank are merged, until no such pair is left (bpe.py).

var GPT = GPT || {};
GPT.engine("tokenizer", (GPT) => {
  "use strict";
  const { bytesOf } = GPT.maths;
  const REPLACEMENT = [0xef, 0xbf, 0xbd]; // U+FFFD, for invalid bytes
  const utf8 = new TextEncoder();

  /** Text that UTF-8 can represent: half a surrogate pair becomes U+FFFD. */
  const whole = (text) => text.replace(/\p{Surrogate}/gu, "\ufffd");

  /** One character for each byte, so that byte strings can be keys of a map. */
  const asKey = (bytes) => bytes.reduce((key, byte) => key + String.fromCharCode(byte), "");

  class Tokenizer {
    /** `tokens`: the bytes of each id, null for an unused id; `encode`: text to ids. */
    constructor({ name, vocab_size, eot_id }, tokens, encode) {
      Object.assign(this, { name, vocab_size, eot_id, tokens, encode });
    }

    /** The bytes of one token. */
    bytes(id) {
      const last = this.vocab_size - 1;
      if (!(id >= 0 && id <= last)) throw new RangeError(`token ${id} is outside 0 to ${last}`);
      return this.tokens[id] || REPLACEMENT;
    }

    /** The text of ids, with U+FFFD for incomplete characters. */
    decode(ids) {
      const stream = this.stream();
      return Array.from(ids, (id) => stream.push(id)).join("") + stream.flush();
    }

    /** Decodes one token at a time: push(id) returns the characters that it completes; flush() returns the rest. */
    stream() {
      const decoder = new TextDecoder("utf-8", { ignoreBOM: true }); // keeps a byte-order mark
      return {
        push: (id) => decoder.decode(Uint8Array.from(this.bytes(id)), { stream: true }),
        flush: () => decoder.decode(),
      };
    }

    /** The tokens of a text, to show: [{ id, text, bytes }]. The text of an incomplete character is U+FFFD. */
    pieces(text) {
      return this.encode(text).map((id) => ({ id, text: this.decode([id]), bytes: Array.from(this.bytes(id)) }));
    }
  }

  /** The encoding that main.py export-page wrote. */
  GPT.tokenizer = (exported) => {
    if (exported.kind === "byte") {
      const bytes = Array.from({ length: 256 }, (_, value) => [value]);
      const tokens = [...bytes, utf8.encode("<|endoftext|>")];
      return new Tokenizer(exported, tokens, (text) => Array.from(utf8.encode(whole(text))));
    }
    const tokens = unpackTokens(bytesOf(exported.tokens));
    const rankOf = new Map();
    tokens.forEach((bytes, rank) => bytes && rankOf.set(asKey(bytes), rank));
    const added = exported.added || {}; // whole words of a text that are tokens, of models from elsewhere
    for (const [name, id] of Object.entries({ ...exported.special, ...added })) tokens[id] = utf8.encode(name);
    const cuts = (exported.patterns || [exported.pattern]).map((rust) => new RegExp(javaScriptPattern(rust), "gu"));
    const isKnown = (byte) => rankOf.has(String.fromCharCode(byte)); // some models have no token for some bytes
    const merged = (text) => {
      const pieces = cuts.reduce((parts, cut) => parts.flatMap((part) => isolated(part, cut)), text ? [text] : []);
      return pieces.flatMap((piece) => mergePiece(asKey(utf8.encode(piece).filter(isKnown)), rankOf));
    };
    const composed = exported.composed ? (text) => text.normalize("NFC") : (text) => text;
    const encode = (text) =>
      splitAt(whole(text), Object.keys(added)).flatMap((part, i) => (i % 2 ? [added[part]] : merged(composed(part))));
    return new Tokenizer(exported, tokens, encode);
  };

  /** The matches of a regular expression and the text between them, in order. */
  function isolated(text, pattern) {
    const parts = [];
    let at = 0;
    for (const { 0: found, index } of text.matchAll(pattern)) {
      parts.push(text.slice(at, index), found);
      at = index + found.length;
    }
    return [...parts, text.slice(at)].filter((part) => part);
  }

  /** The text, cut at the given words: [text, word, text, word, text]. Of two words, the longer one is found. */
  function splitAt(text, words) {
    if (!words.length) return [text];
    const escaped = words.map((word) => word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
    return text.split(new RegExp(`(${escaped.sort((a, b) => b.length - a.length).join("|")})`, "u"));
  }

  /** Byte strings in the order of their ids, each after its length; length 0 marks an unused id. A length is stored in
   *  groups of seven bits, lowest first; a byte above 127 means that another group follows. */
  function unpackTokens(packed) {
    const tokens = [];
    for (let at = 0; at < packed.length; ) {
      let length = 0;
      for (let shift = 0, more = true; more; shift += 7, at += 1) {
        length += (packed[at] & 127) << shift;
        more = packed[at] > 127;
      }
      tokens.push(length ? packed.subarray(at, at + length) : null);
      at += length;
    }
    return tokens;
  }

  /** The ids of one piece, a byte string. Possible merges are kept in a heap: lowest rank first, then the leftmost. */
  function mergePiece(piece, rankOf) {
    if (rankOf.has(piece)) return [rankOf.get(piece)];
    const length = piece.length;
    const end = Int32Array.from({ length }, (_, i) => i + 1); // of the token that begins at i; 0 if none begins there
    const before = Int32Array.from({ length: length + 1 }, (_, i) => i - 1); // where the token before begins
    const heap = smallestFirst((a, b) => a.rank - b.rank || a.left - b.left);
    const consider = (left) => {
      const right = left < 0 ? length : end[left];
      if (right === length) return;
      const rank = rankOf.get(piece.slice(left, end[right]));
      if (rank !== undefined) heap.push({ rank, left, right, stop: end[right] });
    };
    for (let i = 0; i < length; i += 1) consider(i);
    for (let next = heap.pop(); next; next = heap.pop()) {
      const { left, right, stop } = next;
      if (end[left] !== right || end[right] !== stop) continue; // one of the two was merged in the meantime
      end[left] = stop;
      end[right] = 0;
      before[stop] = left;
      consider(before[left]);
      consider(left);
    }
    const ids = [];
    for (let i = 0; i < length; i = end[i]) ids.push(rankOf.get(piece.slice(i, end[i])));
    return ids;
  }

  /** A heap: push(item), and pop() of the smallest one, each in about log2(items) steps. */
  function smallestFirst(compare) {
    const items = []; // item i is not above items 2i + 1 and 2i + 2
    const isBelow = (i, j) => compare(items[i], items[j]) < 0;
    const swap = (i, j) => { [items[i], items[j]] = [items[j], items[i]]; };
    return {
      push(item) {
        items.push(item);
        let i = items.length - 1;
        for (let up = (i - 1) >> 1; i > 0 && isBelow(i, up); i = up, up = (i - 1) >> 1) swap(i, up);
      },
      pop() {
        const first = items[0];
        const last = items.pop();
        if (!items.length) return first;
        items[0] = last;
        for (let i = 0, down = 0; ; i = down) {
          for (const child of [2 * i + 1, 2 * i + 2]) if (child < items.length && isBelow(child, down)) down = child;
          if (down === i) return first;
          swap(i, down);
        }
      },
    };
  }

  /** Translates a regular expression of Rust, which tiktoken uses, to JavaScript.
   *
   *  \s   is Unicode white space in Rust; JavaScript's also has U+FEFF, and lacks U+0085.
   *  x++  never gives back what it matched. In JavaScript: a lookahead with x+ in a group, then a reference to the group.
   *  (?i:...)  ignores case. In JavaScript: each letter in both cases; s also as the long s, k as the Kelvin sign. */
  function javaScriptPattern(rust) {
    let groups = 0;
    const bothCases = (letter) =>
      letter.toLowerCase() + letter.toUpperCase() + ({ s: "\u017f", k: "\u212a" }[letter.toLowerCase()] || "");
    return rust
      .replace(/\(\?i:([^()]*)\)/g, (_, inside) =>
        `(?:${inside.replace(/\[[^\]]*\]|[a-z]/gi, (part) =>
          part.length > 1 ? part.replace(/[a-z]/gi, bothCases) : `[${bothCases(part)}]`)})`)
      .replace(/((?:\[(?:\\.|[^\]\\])*\]|\\[pP]\{\w+\}|\\.|[^\\])(?:[?*+]|\{[\d,]+\}))\+/g,
        (_, possessive) => `(?=(${possessive}))\\${(groups += 1)}`)
      .replace(/\\s/g, "\\p{White_Space}")
      .replace(/\\S/g, "\\P{White_Space}");
  }
});
