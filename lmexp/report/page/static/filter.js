// The filter's expressions: those of --where (analysis/filters.py) with the same meaning, and shorter ways to write
// them. `=` is `==`, a text may stand without quotes (then its case does not matter), conditions side by side must all
// be true, and a word alone must be somewhere in the row. Nothing is run as code.

const SPACE = /\s*/y;
const TEXT = /'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/y;
const SIGN = /<=|>=|==|!=|[-<>=()[\],*/+]/y;
const NUMBER = /\d[\d_.]*(?:e[+-]?\d+)?(?![\w.])/iy;
const WORD = /[^\s<>=!()[\],'"`]+/y;
const KEYWORDS = ["and", "or", "not", "in", "is", "null", "true", "false", "none"];
const COMPARE = { "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
  "==": (a, b) => a === b, "!=": (a, b) => a !== b };
const COMPUTE = { "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b, "/": (a, b) => a / b };
const KINDS = { number: "a number", text: "text", truth: "true or false" };

class WrongExpression extends Error {}

function textOf(i) {
  if (!words) {
    const told = page.columns.map((column) => column.name).filter((name) => name !== "frontier");
    words = rows.map((row) => told.map((name) => row[name] ?? "").join(" ").toLowerCase());
  }
  return words[i];
}

const namesOf = ({ name, title }) =>
  [name, title, name.split(".").pop()].map((known) => known.toLowerCase().replaceAll(" ", "_"));

// Every name of a column, the longest first; a column's own name counts before another one's title.
function namedColumns() {
  const empty = page.empty_columns.map((name) => ({ name, title: name }));
  const named = [...page.columns, ...empty].flatMap((column) => namesOf(column).map((name, rank) => ({ name, rank, column })));
  return named.filter(({ name }) => name).sort((a, b) => b.name.length - a.name.length || a.rank - b.rank);
}

// How many letters must be put in, left out or replaced to get from one word to the other (Levenshtein).
function distance(one, other) {
  let row = [...Array(other.length + 1).keys()];
  for (let i = 1; i <= one.length; i++) {
    const next = [i];
    for (let j = 1; j <= other.length; j++) {
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (one[i - 1] !== other[j - 1])));
    }
    row = next;
  }
  return row[other.length];
}

function noColumn(word) {
  const known = page.columns.flatMap(namesOf).map((name) => [distance(word.toLowerCase(), name), name]);
  const [changes, nearest] = known.reduce((best, other) => (other[0] < best[0] ? other : best));
  return new WrongExpression(`no column '${word}'` + (changes <= word.length / 2 ? `; did you mean '${nearest}'?` : ""));
}

function tokensOf(text) {
  const named = namedColumns();
  const tokens = [];
  const lower = text.toLowerCase();
  let at = 0;
  const take = (pattern) => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match) at += match[0].length;
    return match && match[0];
  };
  const ends = (name) => !/[\w.]/.test(text[at + name.length] ?? " ");
  const columnHere = () => named.find(({ name }) => lower.startsWith(name, at) && ends(name));
  for (take(SPACE); at < text.length; take(SPACE)) {
    let source;
    const column = text[at] === "`" ? null : columnHere();
    if (column && !KEYWORDS.includes(column.name)) {
      source = text.slice(at, at + column.name.length);
      at += column.name.length;
      tokens.push({ type: "column", source, column: column.column });
    } else if (text[at] === "`" && text.indexOf("`", at + 1) > 0) {
      source = text.slice(at + 1, text.indexOf("`", at + 1));
      at += source.length + 2;
      const own = named.find(({ column }) => column.name === source);
      if (!own) throw noColumn(source);
      tokens.push({ type: "column", source, column: own.column });
    } else if ((source = take(TEXT))) {
      tokens.push({ type: "text", source: source.slice(1, -1).replace(/\\(.)/g, "$1") });
    } else if ((source = take(SIGN))) {
      tokens.push({ type: source === "=" ? "==" : source, source });
    } else if ((source = take(NUMBER))) {
      tokens.push({ type: "number", source });
    } else if ((source = take(WORD))) {
      tokens.push({ type: KEYWORDS.includes(source.toLowerCase()) ? source.toLowerCase() : "word", source });
    } else {
      throw new WrongExpression(`'${text[at]}' is not allowed here`);
    }
  }
  return tokens;
}

// Reads tokens into nodes: `at(i)` is the value in row i, null where it is not known; `search` is the text of a node that
// is a single word, which a row must hold if nothing is asked of it.
function parsed(text) {
  const tokens = tokensOf(text);
  let next = 0;
  const peek = (ahead = 0) => tokens[next + ahead]?.type;
  const took = (...types) => (types.includes(peek()) ? tokens[next++] : null);
  const need = (type) => { if (!took(type)) throw new WrongExpression(`'${type}' is missing`); };

  const both = (isAnd) => (a, b) => ({ kind: "truth", at: (i) => {
    const [x, y] = [a.at(i), b.at(i)];
    if (x === !isAnd || y === !isAnd) return !isAnd;
    return x === null || y === null ? null : isAnd;
  } });

  function either() {
    let node = all();
    while (took("or")) node = both(false)(asTruth(node), asTruth(all()));
    return node;
  }
  function all() {
    let node = negated();
    while (took("and") || ![undefined, "or", ")", "]", ","].includes(peek())) {
      node = both(true)(asTruth(node), asTruth(negated()));
    }
    return node;
  }
  function negated() {
    if (!took("not")) return comparison();
    const node = asTruth(negated());
    return { kind: "truth", at: (i) => (node.at(i) === null ? null : !node.at(i)) };
  }
  function comparison() {
    let left = sum();
    let result = null;
    for (;;) {
      let right, step;
      const isNot = peek() === "not" && peek(1) === "in" && next++ >= 0;
      const sign = took("<", "<=", ">", ">=", "==", "!=", "in", "is")?.type;
      if (!sign) return result ?? left;
      if (sign === "in") {
        right = took("[") || took("(") ? list() : sum();
        step = contained(left, right, isNot);
      } else {
        const wanted = sign === "is" ? (took("not") ? "!=" : "==") : sign;
        right = sum();
        step = compared(left, wanted, right);
      }
      result = result ? both(true)(result, step) : step;
      left = right;
    }
  }
  function list() {
    const items = [];
    while (!took("]", ")")) {
      items.push(sum());
      if (!took(",") && ![")", "]"].includes(peek())) throw new WrongExpression("']' is missing");
    }
    return { items };
  }
  const chained = (part, signs) => () => {
    let node = part();
    for (let sign; (sign = took(...signs));) {
      const [a, b] = [asNumber(node), asNumber(part())];
      node = { kind: "number", at: (i) => {
        const value = a.at(i) === null || b.at(i) === null ? null : COMPUTE[sign.type](a.at(i), b.at(i));
        return Number.isNaN(value) ? null : value;
      } };
    }
    return node;
  };
  const product = chained(unary, ["*", "/"]);
  const sum = chained(product, ["+", "-"]);
  function unary() {
    if (!took("-")) return atom();
    const node = asNumber(unary());
    return { kind: "number", at: (i) => (node.at(i) === null ? null : -node.at(i)) };
  }
  function atom() {
    const token = tokens[next++];
    if (!token) throw new WrongExpression("something is missing at the end");
    const { type, source, column } = token;
    if (type === "(") {
      const node = either();
      need(")");
      return node;
    }
    if (type === "column") return { kind: kindOf(column), source, search: source, at: (i) => rows[i][column.name] ?? null };
    if (type === "number") return { kind: "number", source, search: source, at: () => Number(source.replaceAll("_", "")) };
    if (type === "text") return { kind: "text", source: `'${source}'`, search: source, at: () => source };
    if (type === "word") return { kind: "word", source, search: source };
    if (type === "true" || type === "false") return { kind: "truth", source, at: () => type === "true" };
    if (type === "null" || type === "none") return { kind: "null", source, at: () => null };
    throw new WrongExpression(`'${source}' is not allowed here`);
  }

  const node = asTruth(either());
  if (next < tokens.length) throw new WrongExpression(`'${tokens[next].source}' is not allowed here`);
  return node;
}

function kindOf(column) {
  if (column.numeric) return "number";
  const value = rows.map((row) => row[column.name] ?? null).find((known) => known !== null);
  return value === undefined ? "any" : typeof value === "boolean" ? "truth" : "text";
}

function asTruth(node) {
  if (node.kind === "truth") return node;
  if (node.search === undefined) throw new WrongExpression("a comparison is missing, as in n_layers >= 4");
  const wanted = node.search.toLowerCase();
  return { kind: "truth", at: (i) => textOf(i).includes(wanted) };
}

function asNumber(node) {
  if (node.kind === "word") throw noColumn(node.source);
  if (node.kind !== "number" && node.kind !== "any") throw new WrongExpression(`${node.source} is no number`);
  return node;
}

function compared(left, sign, right) {
  if (left.kind === "word") throw noColumn(left.source);
  if (left.kind === "null" || right.kind === "null") {
    if (sign !== "==" && sign !== "!=") throw new WrongExpression("null is neither more nor less than anything");
    const [known, isNull] = [left.kind === "null" ? right : left, sign === "=="];
    return { kind: "truth", at: (i) => (known.at(i) === null) === isNull };
  }
  if (right.kind === "word" && left.kind !== "text" && left.kind !== "any") throw noColumn(right.source);
  const isAny = left.kind === "any" || right.kind === "any" || right.kind === "word";
  if (left.kind !== right.kind && !isAny) {
    const held = `${left.source} is ${KINDS[left.kind]}, ${right.source} is ${KINDS[right.kind]}`;
    throw new WrongExpression(`${held}: these do not compare`);
  }
  const folded = right.kind === "word" ? right.source.toLowerCase() : null;
  return { kind: "truth", at: (i) => {
    const a = left.at(i);
    const b = folded ?? right.at(i);
    return a === null || b === null ? null : COMPARE[sign](folded === null ? a : String(a).toLowerCase(), b);
  } };
}

function contained(left, right, isNot) {
  const turned = (value) => (value === null ? null : value !== isNot);
  if (right.items) {
    const equal = right.items.map((item) => compared(left, "==", item));
    return { kind: "truth", at: (i) => turned(left.at(i) === null ? null : equal.some((one) => one.at(i))) };
  }
  if (right.kind === "word") throw noColumn(right.source);
  const part = left.kind === "word" ? left.source : left.kind === "text" ? left.at(0) : null;
  if (part === null || right.kind !== "text") {
    throw new WrongExpression("after `in` comes a list, as in ['fp32', 'bf16'], or a column of text");
  }
  return { kind: "truth", at: (i) => turned(right.at(i) === null ? null : right.at(i).includes(part)) };
}

// The test of a row that a text in the filter stands for, and what is wrong with it: then no row passes.
function filterOf(text) {
  if (!text.trim()) return { test: () => true, problem: "" };
  try {
    const { at } = parsed(text);
    return { test: (i) => at(i) === true, problem: "" };
  } catch (error) {
    if (!(error instanceof WrongExpression || error instanceof RangeError)) throw error;
    return { test: () => false, problem: error instanceof RangeError ? "this is nested too deeply" : error.message };
  }
}
