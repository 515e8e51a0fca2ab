// WordPiece as uncased BERT has it: a text becomes the ids that the encoder was trained on.
//
// It follows the tokenizer that Python uses, down to what Unicode calls a control character, and
// which characters count as Chinese. tests/demo compares the ids of the two.

const LONGEST_WORD = 100;
const SPECIAL = /(\[(?:PAD|UNK|CLS|SEP|MASK)\])/;
const PUNCTUATION = /[!-/:-@[-`{-~\p{P}]/u;
const SPACE = /[\t\n\r\p{Z}]/u;
const CONTROL = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\ufffd]/u;
const CHINESE = [
  [0x4e00, 0x9fff], [0x3400, 0x4dbf], [0x20000, 0x2a6df], [0x2a700, 0x2b73f],
  [0x2b740, 0x2b81f], [0x2b820, 0x2ceaf], [0xf900, 0xfaff], [0x2f800, 0x2fa1f],
];

function isChinese(character) {
  const code = character.codePointAt(0);
  return code > 0x33ff && CHINESE.some(([first, last]) => first <= code && code <= last);
}

// Control characters go, white space becomes a space, and Chinese characters stand alone.
function cleaned(text) {
  let result = "";
  for (const character of text) {
    if (SPACE.test(character)) result += " ";
    else if (isChinese(character)) result += ` ${character} `;
    else if (!CONTROL.test(character)) result += character;
  }
  return result;
}

export function normalized(text) {
  const bare = cleaned(text).normalize("NFD").replace(/\p{Mn}/gu, "");
  // One by one: a whole word would turn a last Σ into ς, which the tokenizer does not.
  return Array.from(bare, (character) => character.toLowerCase()).join("");
}

function wordsOf(text) {
  return text.split(/\p{White_Space}+/u).flatMap(splitAtPunctuation).filter(Boolean);
}

function splitAtPunctuation(word) {
  const parts = [""];
  for (const character of word) {
    if (PUNCTUATION.test(character)) parts.push(character, "");
    else parts[parts.length - 1] += character;
  }
  return parts;
}

export class Tokenizer {
  // vocabulary: one piece a line, in order of ids.
  constructor(vocabulary) {
    this.ids = new Map(vocabulary.split("\n").map((piece, id) => [piece, id]));
  }

  // The ids of a text between [CLS] and [SEP], at most `most` of them.
  encode(text, most) {
    const inner = text.split(SPECIAL).flatMap((part, i) =>
      i % 2 ? [this.ids.get(part)] : wordsOf(normalized(part)).flatMap((word) => this.piecesOf(word)));
    return [this.ids.get("[CLS]"), ...inner.slice(0, most - 2), this.ids.get("[SEP]")];
  }

  // The longest piece that fits, again and again; a word with no such pieces is unknown.
  piecesOf(word) {
    const characters = Array.from(word), pieces = [], unknown = [this.ids.get("[UNK]")];
    if (characters.length > LONGEST_WORD) return unknown;
    for (let start = 0; start < characters.length;) {
      let end = characters.length, id;
      for (; end > start; end--) {
        id = this.ids.get((start ? "##" : "") + characters.slice(start, end).join(""));
        if (id !== undefined) break;
      }
      if (end === start) return unknown;
      pieces.push(id);
      start = end;
    }
    return pieces;
  }
}
