// Reading a text that changes: only what follows its unchanged beginning passes through the model.
//
// A token never attends to later ones. So nothing about the unchanged tokens can be different: their keys and values are in
// the cache, and their part of the trace stays. A letter at the end of a text costs one or two tokens, however long it is.
//
//   const reader = GPT.reading.reader(model);                     the cache, and the tokens that are in it
//   const part = reader.read(tokens);                             the trace of the new tokens
//   trace = GPT.reading.joined(model, trace, part);               the trace of all tokens, the same as model.run(tokens)
//
// A trace has the keys and values of its tokens too: next() reads on from there, without a reader.
//
// In a worker, packed() takes the numbers of a part out of its tensors; in the page, unpacked() makes them tensors again.

var GPT = GPT || {};
GPT.engine("reading", (GPT) => {
  "use strict";
  const { tensor, withShape, dot } = GPT.maths;
  const sourcesOf = new WeakMap(); // joined trace -> the traces that it is made of, with the number of tokens from each

  class Reader {
    constructor(model) {
      this.model = model;
      this.cache = model.start();
      this.tokens = []; // those in the cache
    }

    /** Reads the tokens that are not in the cache yet, or that follow the first `known` ones, at most `most` of them, and
     *  forgets those that are no longer in the text: { past, trace }. The trace is that of the tokens after the first
     *  `past` ones, or null if there are none. */
    read(tokens, known = Infinity, most = Infinity) {
      const past = Math.min(known, unchanged(this.tokens, tokens));
      const fresh = tokens.slice(past, past + most);
      this.cache.length = past;
      this.tokens = tokens.slice(0, past + fresh.length);
      return { past, trace: fresh.length ? this.model.advance(fresh, this.cache) : null };
    }
  }

  /** How many tokens at the beginning of two texts are the same. */
  function unchanged(before, tokens) {
    let same = 0;
    while (same < before.length && before[same] === tokens[same]) same += 1;
    return same;
  }

  /** Reads the tokens after the first `past` ones, which are the first ones of `before` too: { past, trace }. */
  function next(model, before, tokens, past) {
    const fresh = tokens.slice(past);
    return { past, trace: fresh.length ? model.advance(fresh, cacheOf(model, before, tokens.length, past)) : null };
  }

  /** A cache for maxLen tokens that holds the keys and values of the first T tokens of a trace: reading them again would fill
   *  it the same. */
  function cacheOf(model, trace, maxLen, T = trace.T) {
    const cache = model.start(maxLen);
    trace.layers.forEach(({ k, v }, layer) => {
      joinHeads([[k, T]], cache.keys[layer]);
      joinHeads([[v, T]], cache.values[layer]);
    });
    cache.length = T;
    return cache;
  }

  /** The first `past` tokens of a trace and the tokens of a part, in one trace. Its tensors are joined when they are first
   *  asked for: the diagrams that are in view need few of them. */
  function joined(model, before, { past, trace }) {
    const sources = [...firstOf(before, past), ...(trace ? [[trace, trace.T]] : [])]; // [trace, number of its tokens]
    const of = (name) => sources.map(([source, count]) => [source[name], count]);
    const tokens = of("tokens").flatMap(([ids, count]) => ids.slice(0, count));
    const whole = { tokens, T: tokens.length, past: 0 };
    sourcesOf.set(whole, sources);
    for (const name of ["tokenVectors", "positionVectors", "embedded", "final"]) later(whole, name, () => join(name, of(name)));
    whole.layers = model.layers.map((_, layer) => {
      const inside = joinedLayer(of("layers").map(([layers, count]) => [layers[layer], count]));
      later(inside, "input", () => (layer ? whole.layers[layer - 1].output : whole.embedded));
      return inside;
    });
    const C = model.config.d_model;
    whole.known = before ? before.known.slice(0, past) : []; // logits that the page has asked for
    whole.logits = (t) => (whole.known[t] ??= model.toLogits(whole.final.subarray(t * C, (t + 1) * C)));
    return whole;
  }

  /** The sources of the first `past` tokens of a trace. */
  function firstOf(before, past) {
    const found = [];
    let left = past;
    for (const [source, count] of sourcesOf.get(before) || [[before, past]]) {
      if (left > 0) found.push([source, Math.min(count, left)]);
      left -= count;
    }
    return found;
  }

  /** A property whose value is computed when it is first asked for. */
  function later(object, name, compute) {
    const set = (how) => Object.defineProperty(object, name, { enumerable: true, configurable: true, ...how });
    set({ get: () => set({ value: compute() })[name] });
  }

  /** The results of one block, except its input, which is the output of the block before. */
  function joinedLayer(sources) {
    const inside = {};
    for (const name of Object.keys(sources[0][0])) {
      if (name === "input") continue;
      const of = () => sources.map(([layer, count]) => [layer[name], count]);
      if (name === "unrotated" && sources[0][0][name]) inside[name] = joinedLayer(of());
      else if (name === "scores") later(inside, name, () => compareWithLater(inside, join(name, of()), sources));
      else later(inside, name, () => join(name, of()));
    }
    return inside;
  }

  /** One tensor from [tensor, number of its tokens] of each source; null if the model has no such result. */
  function join(name, tensors) {
    const [first] = tensors[0];
    if (!first) return null;
    const T = tensors.reduce((sum, [, count]) => sum + count, 0);
    if (first.shape.length === 2) return joinRows(tensors, tensor(T, first.shape[1]));
    if (name === "scores" || name === "weights") return joinSquares(tensors, tensor(first.shape[0], T, T));
    return joinHeads(tensors, tensor(first.shape[0], T, first.shape[2]));
  }

  /** (T, C): row after row. */
  function joinRows(tensors, whole) {
    const C = whole.shape[1];
    let at = 0;
    for (const [rows, count] of tensors) {
      whole.set(rows.subarray(0, count * C), at * C);
      at += count;
    }
    return whole;
  }

  /** (H, T, D): row after row in each head. */
  function joinHeads(tensors, whole) {
    const [H, T, D] = whole.shape;
    let at = 0;
    for (const [heads, count] of tensors) {
      const size = heads.shape[1] * D;
      for (let h = 0; h < H; h += 1) {
        whole.set(heads.subarray(h * size, h * size + count * D), (h * T + at) * D);
      }
      at += count;
    }
    return whole;
  }

  /** (H, T, T): a row and a column for each token. The earlier tokens give the later ones a weight of 0. */
  function joinSquares(tensors, whole) {
    const [H, T] = whole.shape;
    let at = 0;
    for (const [squares, count] of tensors) {
      const [, rows, columns] = squares.shape;
      for (let h = 0; h < H; h += 1) {
        for (let t = 0; t < count; t += 1) {
          const [from, to] = [(h * rows + t) * columns, (h * T + at + t) * T];
          for (let s = 0; s < at + count; s += 1) whole[to + s] = squares[from + s];
        }
      }
      at += count;
    }
    return whole;
  }

  /** Adds the scores of queries with keys that came in later parts. The mask hides them from the model, but the page shows
   *  them. */
  function compareWithLater({ q, k }, scores, sources) {
    const [H, T, D] = q.shape;
    const [K] = k.shape;
    let [from, to] = [0, 0]; // the tokens of one source
    for (const [, count] of sources) {
      [from, to] = [to, to + count];
      for (let h = 0; h < H; h += 1) {
        const kv = Math.floor((h * K) / H);
        for (let t = from; t < to; t += 1) {
          for (let s = to; s < T; s += 1) {
            scores[(h * T + t) * T + s] = dot(q, (h * T + t) * D, k, (kv * T + s) * D, D) / Math.sqrt(D);
          }
        }
      }
    }
    return scores;
  }

  /** A part without tensors and functions, as a message between threads can carry it: { message, buffers }. */
  function packed(part) {
    const buffers = new Set();
    const pack = (value) => {
      if (ArrayBuffer.isView(value)) {
        buffers.add(value.buffer);
        return { numbers: value, shape: value.shape };
      }
      if (Array.isArray(value)) return value.map(pack);
      if (!value || typeof value !== "object") return value;
      return fromEntries(value, (one) => typeof one !== "function", pack);
    };
    return { message: pack(part), buffers: [...buffers] };
  }

  /** The part that was packed. */
  function unpacked(value) {
    if (Array.isArray(value)) return value.map(unpacked);
    if (!value || typeof value !== "object") return value;
    if (value.numbers) return withShape(value.numbers, value.shape);
    return fromEntries(value, () => true, unpacked);
  }

  function fromEntries(value, isKept, change) {
    const kept = Object.entries(value).filter(([, one]) => isKept(one));
    return Object.fromEntries(kept.map(([name, one]) => [name, change(one)]));
  }

  GPT.reading = { reader: (model) => new Reader(model), unchanged, next, cacheOf, joined, packed, unpacked };
});
