// The encoder: a text goes in, a vector of length 1 comes out.

import * as ort from "./ort/ort.wasm.min.mjs";
import { Tokenizer } from "./tokenizer.js";

export class Encoder {
  // files: the bytes of the model, the runtime and the vocabulary; most: tokens of a text.
  static async open(files, most) {
    ort.env.wasm.numThreads = 1; // more would need headers that many servers do not send
    ort.env.wasm.wasmBinary = files.runtime;
    // Absolute: a relative address would be taken from the runtime's own folder.
    ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
    const session = await ort.InferenceSession.create(files.model, { executionProviders: ["wasm"] });
    return new Encoder(session, new Tokenizer(new TextDecoder().decode(files.vocabulary)), most);
  }

  constructor(session, tokenizer, most) {
    Object.assign(this, { session, tokenizer, most });
  }

  async read(text) {
    const ids = this.tokenizer.encode(text, this.most), shape = [1, ids.length];
    const { sentence } = await this.session.run({
      input_ids: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), shape),
      attention_mask: new ort.Tensor("int64", new BigInt64Array(ids.length).fill(1n), shape),
    });
    return { vector: sentence.data, tokens: ids.length };
  }
}
