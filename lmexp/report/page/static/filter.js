// The filter's expressions: those of --where, by the same grammar (analysis/grammar.py) and with the same meaning and
// messages (analysis/filters.py). Each function here has the name of its fellow there, and one test runs both on the
// same expressions. Nothing is run as code.

const MAX_CHARACTERS = 5000;
const MAX_DEPTH = 40;
const UNITS = { k: 1e3, K: 1e3, M: 1e6, G: 1e9, B: 1e9, T: 1e12, P: 1e15, E: 1e18, Z: 1e21, Y: 1e24 };
const CONSTANTS = { true: true, false: false, null: null, none: null };
const KEYWORDS = ["and", "or", "not", "in", "is", ...Object.keys(CONSTANTS)];
const ALLOWED = "allowed are names of columns, numbers, texts, comparisons, in, is, and, or, not, + - * /";

const SPACE = /[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/y;
const TEXT = /'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/sy;
const SIGN = /<=|>=|==|!=|\*\*|[-<>=()[\],*/+^]/y;
const NUMBER = /((?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?)([kKMGBTPEZY]?)(?![\p{L}\p{N}_.])/uy;
const WORD = /[^\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000<>=!()[\],'"`*+&|#;{}\\^$?]+/y;
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]|\p{Surrogate}/gu;

const COMPARE = { "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
  "==": (a, b) => a === b, "!=": (a, b) => a !== b };
const COMPUTE = { "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b, "/": (a, b) => a / b };
const NO_TRUTH = "this is neither true nor false; a comparison is, as in n_layers >= 4";
const NO_COLUMN = "neither side of this comparison is a column";

class WrongExpression extends Error {}

const printable = (text) => text.replace(CONTROL, "\ufffd");

// The error for a place in a text. Places in messages count characters, not the halves that a string consists of.
function wrong(text, place, what) {
  const here = printable([...text.slice(place)].slice(0, 20).join(""));
  const at = here ? `at '${here}' (character ${[...text.slice(0, place)].length + 1})` : "at its end";
  return new WrongExpression(`in the expression, ${at}: ${printable(what)}`);
}

// ---- names: page.filter has the kind of each column, and the columns that a spelling in lower case may mean ----

const has = (object, key) => Object.hasOwn(object, key);
let patternOf = null; // the names that the pattern is for, and the pattern

function nameAt(text, place) {
  const { kinds, spellings } = page.filter;
  if (patternOf?.kinds !== kinds) {
    const known = [...new Set([...Object.keys(kinds), ...Object.keys(spellings)])].filter(Boolean)
      .sort((a, b) => b.length - a.length).map((name) => name.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
    const pattern = known.length ? `(?:${known.join("|")})(?![\\p{L}\\p{N}_.])` : "(?!)";
    patternOf = { kinds, pattern: new RegExp(pattern, "iuy") };
  }
  patternOf.pattern.lastIndex = place;
  const name = patternOf.pattern.exec(text)?.[0];
  return name === undefined || KEYWORDS.includes(name.toLowerCase()) ? null : name;
}

function meant(spelling) {
  const { kinds, spellings } = page.filter;
  if (has(kinds, spelling)) return [spelling];
  return has(spellings, spelling.toLowerCase()) ? spellings[spelling.toLowerCase()] : [];
}

// How much of two texts is the same: twice the letters in common over all letters (Ratcliff and Obershelp), as
// difflib.SequenceMatcher has it.
function likeness(one, other) {
  const common = (a, b) => {
    let best = { size: 0 };
    let before = [];
    for (let i = 0; i < a.length; i++) {
      const sizes = [];
      for (let j = 0; j < b.length; j++) {
        if (a[i] !== b[j]) continue;
        sizes[j] = (before[j - 1] ?? 0) + 1;
        if (sizes[j] > best.size) best = { size: sizes[j], i: i - sizes[j] + 1, j: j - sizes[j] + 1 };
      }
      before = sizes;
    }
    if (!best.size) return 0;
    const { size, i, j } = best;
    return size + common(a.slice(0, i), b.slice(0, j)) + common(a.slice(i + size), b.slice(j + size));
  };
  const [a, b] = [[...one], [...other]];
  return a.length + b.length ? (2 * common(a, b)) / (a.length + b.length) : 1;
}

function nearest(word) {
  const known = new Set([...Object.keys(page.filter.kinds), ...Object.keys(page.filter.spellings)]);
  let best = [0.5, null];
  for (const name of known) {
    const score = likeness(name, word);
    if (score > best[0] || (score === best[0] && (best[1] === null || name > best[1]))) best = [score, name];
  }
  return best[1] === null ? "" : ` Did you mean '${best[1]}'?`;
}

// ---- from a text to a tree ----

function tokensOf(text) {
  const tokens = [];
  let at = 0;
  const match = (pattern) => {
    pattern.lastIndex = at;
    return pattern.exec(text);
  };
  const put = (kind, length, value) => {
    tokens.push({ kind, start: at, end: at + length, value });
    at += length;
  };
  while (at < text.length) {
    let found;
    if ((found = match(SPACE))) {
      at += found[0].length;
    } else if (text[at] === "`") {
      const end = text.indexOf("`", at + 1);
      if (end < 0) throw wrong(text, at, "this name has no closing backquote");
      put("name", end + 1 - at, text.slice(at + 1, end));
    } else if (text[at] === "'" || text[at] === '"') {
      found = match(TEXT);
      if (!found) throw wrong(text, at, "this text has no closing quote");
      put("text", found[0].length, found[0].slice(1, -1).replace(/\\(.)/gs, "$1"));
    } else if ((found = nameAt(text, at)) !== null) {
      put("name", found.length, found);
    } else if ((found = match(NUMBER))) {
      const number = Number(found[1].replaceAll("_", "")) * (UNITS[found[2]] ?? 1);
      if (number === Infinity) throw wrong(text, at, "this number is too large");
      put("number", found[0].length, number);
    } else if ((found = match(SIGN))) {
      put(found[0], found[0].length);
    } else if ((found = match(WORD)) && KEYWORDS.includes(found[0].toLowerCase())) {
      put(found[0].toLowerCase(), found[0].length);
    } else if (found && text[at + found[0].length] !== "(") { // a call, and there are no functions
      put("name", found[0].length, found[0]);
    } else {
      throw wrong(text, at, `this is not allowed here; ${ALLOWED}`);
    }
  }
  return tokens;
}

// The tree of an expression: one function for each rule of the grammar.
function parse(text) {
  if ([...text].length > MAX_CHARACTERS) {
    const characters = [...text].length.toLocaleString("en");
    throw new WrongExpression(`an expression of ${characters} characters; allowed are ${MAX_CHARACTERS.toLocaleString("en")}`);
  }
  const tokens = tokensOf(text);
  let next = 0;
  let depth = 0;
  const peek = (ahead = 0) => tokens[next + ahead]?.kind;
  const took = (...kinds) => (kinds.includes(peek()) ? tokens[next++] : null);
  const refuse = () => {
    if (peek() === undefined) return wrong(text, text.length, "something is missing, as in n_layers >= 4");
    return wrong(text, tokens[next].start, `this is not allowed here; ${ALLOWED}`);
  };
  const notClosed = ({ kind, start }) => wrong(text, start, `this ${kind === "(" ? "parenthesis" : "bracket"} is not closed`);
  const nested = ({ start }, rule) => {
    if (++depth > MAX_DEPTH) throw wrong(text, start, "this is nested too deeply");
    const node = rule();
    depth--;
    return node;
  };
  const over = (rule, first, last, rest) => ({ rule, start: first.start, end: last.end, ...rest });

  function either() {
    const parts = [all()];
    while (took("or")) parts.push(all());
    return joined("or", parts);
  }
  function all() {
    const parts = [negated()];
    while (took("and") || ![undefined, "or", ")", "]", ","].includes(peek())) parts.push(negated());
    return joined("and", parts);
  }
  function joined(operator, parts) {
    return parts.length === 1 ? parts[0] : over("logic", parts[0], parts.at(-1), { operator, parts });
  }
  function negated() {
    const sign = took("not");
    if (!sign) return comparison();
    const part = nested(sign, negated);
    return over("not", sign, part, { part });
  }
  function comparison() {
    const first = sum();
    const steps = [];
    for (let operator; (operator = comparisonSign());) {
      const isList = operator.endsWith("in") && ["[", "("].includes(peek());
      steps.push([operator, isList ? items() : sum()]);
    }
    return steps.length ? over("comparison", first, steps.at(-1)[1], { first, steps }) : first;
  }
  function comparisonSign() {
    if (peek() === "not" && peek(1) === "in") {
      next += 2;
      return "not in";
    }
    const kind = took("<", "<=", ">", ">=", "==", "!=", "in", "is", "=")?.kind;
    if (kind === "is") return took("not") ? "!=" : "==";
    return kind === "=" ? "==" : kind;
  }
  function items() {
    const opening = took("[", "(");
    const closing = opening.kind === "[" ? "]" : ")";
    const listed = [];
    while (peek() !== closing) {
      if (peek() === undefined) throw notClosed(opening);
      listed.push(sum());
      if (!took(",") && ![closing, undefined].includes(peek())) throw refuse();
    }
    return over("items", opening, took(closing), { items: listed });
  }
  const chained = (part, ...signs) => () => {
    const first = part();
    const steps = [];
    for (let sign; (sign = took(...signs));) steps.push([sign.kind, part()]);
    return steps.length ? over("computed", first, steps.at(-1)[1], { first, steps }) : first;
  };
  const product = chained(unary, "*", "/");
  const sum = chained(product, "+", "-");
  function unary() {
    const sign = took("-", "+");
    if (!sign) return atom();
    const part = nested(sign, unary);
    return sign.kind === "-" ? over("negative", sign, part, { part }) : part;
  }
  function atom() {
    const opening = took("(");
    if (opening) {
      const node = nested(opening, either);
      if (took(")")) return node;
      throw peek() === undefined ? notClosed(opening) : refuse();
    }
    const token = took("name", "number", "text", ...Object.keys(CONSTANTS));
    if (!token) throw refuse();
    const { kind, value } = token;
    if (kind !== "name") return over("constant", token, token, { value: has(CONSTANTS, kind) ? CONSTANTS[kind] : value });
    const columns = meant(value);
    const isWord = !columns.length && text[token.start] !== "`";
    return over("name", token, token, { name: value, columns, isWord });
  }

  const node = either();
  if (peek() === ")") throw wrong(text, tokens[next].start, "this parenthesis closes none");
  if (peek() !== undefined) throw refuse();
  return node;
}

// ---- from a tree to values: `at(i)` is the value in row i, null where it is not known ----

const [A_NUMBER, A_TEXT, A_TRUTH, UNKNOWN, NULL] = ["a number", "text", "true or false", "unknown", "null"];
const kindOf = (value) =>
  (value === null ? NULL : typeof value === "boolean" ? A_TRUTH : typeof value === "string" ? A_TEXT : A_NUMBER);
const finite = (value) => (Number.isFinite(value) ? value : null);
const truths = (at) => ({ kind: A_TRUTH, at });

function conjoined(a, b, isAnd) {
  if (a === !isAnd || b === !isAnd) return !isAnd;
  return a === null || b === null ? null : isAnd;
}

function testOf(text) {
  const failure = (node, what) => wrong(text, node.start, what);
  const wordsOfNode = (node) => (node.rule === "name" ? node.name : text.slice(node.start, node.end));

  function read(node) {
    const { rule, parts, part, first, steps, operator, value } = node;
    if (rule === "constant") return { kind: kindOf(value), constant: value, isConstant: true, at: () => value };
    if (rule === "name") return columnOf(node);
    if (rule === "logic") {
      return parts.map(truth).reduce((a, b) => truths((i) => conjoined(a.at(i), b.at(i), operator === "and")));
    }
    if (rule === "not") {
      const negated = truth(part);
      return truths((i) => (negated.at(i) === null ? null : !negated.at(i)));
    }
    if (rule === "negative") {
      const number = numberOf(part);
      if (number.isConstant) return constant(-number.constant);
      return { kind: A_NUMBER, at: (i) => (number.at(i) === null ? null : -number.at(i)) };
    }
    if (rule === "computed") {
      return steps.reduce((total, [sign, right]) => computed(node, sign, total, right), numberOf(first));
    }
    const results = steps.map(([sign, right], i) => compared(i ? steps[i - 1][1] : first, sign, right));
    return results.reduce((a, b) => truths((i) => conjoined(a.at(i), b.at(i), true)));
  }
  const constant = (number) => ({ kind: A_NUMBER, constant: number, isConstant: true, at: () => number });

  // A word, a text or a number alone is true of a row if one of its texts has it.
  function truth(node) {
    const searched = node.isWord ? node.name : typeof node.value === "string" ? node.value
      : typeof node.value === "number" ? wordsOfNode(node) : null;
    if (searched !== null) {
      const wanted = searched.toLowerCase();
      return truths((i) => textsOf(i).some((held) => held.includes(wanted)));
    }
    const value = read(node);
    if (value.kind !== A_TRUTH && value.kind !== UNKNOWN) throw failure(node, NO_TRUTH);
    return value;
  }
  function columnOf({ name, columns, ...node }) {
    if (!columns.length) throw failure(node, `there is no column '${name}'.${nearest(name)}`);
    if (columns.length > 1) throw failure(node, `'${name}' may mean ${columns.join(" or ")}; write one of them`);
    const kind = page.filter.kinds[columns[0]];
    const values = has(page.rows, columns[0]) ? page.rows[columns[0]] : [];
    return { kind, at: kind === UNKNOWN ? () => null : (i) => values[i] ?? null };
  }
  function numberOf(node) {
    const value = read(node);
    if (value.kind !== A_NUMBER && value.kind !== UNKNOWN) throw failure(node, `this is ${value.kind}, not a number`);
    return value;
  }
  function computed(node, sign, total, right) {
    const other = numberOf(right);
    if (!total.isConstant || !other.isConstant) {
      return { kind: A_NUMBER, at: (i) => {
        const [a, b] = [total.at(i), other.at(i)];
        return a === null || b === null ? null : finite(COMPUTE[sign](a, b));
      } };
    }
    if (sign === "/" && other.constant === 0) throw failure(right, "a division by zero");
    const result = COMPUTE[sign](total.constant, other.constant);
    if (!Number.isFinite(result)) throw failure(node, "this number is too large");
    return constant(result);
  }
  function compared(left, operator, right) {
    if (operator.endsWith("in")) {
      const result = right.rule === "items" ? inList(left, right) : partOf(left, right);
      if (operator === "in") return result;
      return truths((i) => (result.at(i) === null ? null : !result.at(i)));
    }
    const first = read(left);
    const folds = isText(right, first.kind);
    const second = folds ? constantText(right) : read(right);
    const areColumns = !first.isConstant || !second.isConstant;
    if (first.kind === NULL || second.kind === NULL) {
      if (operator !== "==" && operator !== "!=") throw failure(left, "null is neither more nor less than anything; write is null");
      if (!areColumns) throw failure(left, NO_COLUMN);
      const known = first.kind === NULL ? second : first;
      return truths((i) => (known.at(i) === null) === (operator === "=="));
    }
    checkKinds(left, first, right, second);
    if (!areColumns) throw failure(left, NO_COLUMN);
    return truths((i) => {
      const [a, b] = [first.at(i), second.at(i)];
      return a === null || b === null ? null : COMPARE[operator](folds ? a.toLowerCase() : a, b);
    });
  }
  function inList(left, right) {
    const first = read(left);
    if (first.isConstant) throw failure(left, "the left side of `in [...]` must be a column");
    const equal = right.items.map((item) => {
      if (isText(item, first.kind)) {
        const folded = item.name.toLowerCase();
        return (value) => value.toLowerCase() === folded;
      }
      const value = read(item);
      if (!value.isConstant || value.kind === NULL) throw failure(item, "a list holds numbers or texts");
      checkKinds(left, first, item, value);
      return (known) => known === value.constant;
    });
    return truths((i) => (first.at(i) === null ? null : equal.some((test) => test(first.at(i)))));
  }
  function partOf(left, right) {
    const folds = isText(left, A_TEXT);
    const part = folds ? constantText(left) : read(left);
    const second = read(right);
    if (part.kind !== A_TEXT || !part.isConstant || second.isConstant || ![A_TEXT, UNKNOWN].includes(second.kind)) {
      throw failure(right, "after `in` comes a list, as in ['fp32', 'bf16'], or a column of text");
    }
    return truths((i) => {
      const held = second.at(i);
      return held === null ? null : (folds ? held.toLowerCase() : held).includes(part.constant);
    });
  }
  const isText = (node, kind) => node.isWord && (kind === A_TEXT || kind === UNKNOWN);
  const constantText = ({ name }) => {
    const value = name.toLowerCase();
    return { kind: A_TEXT, constant: value, isConstant: true, at: () => value };
  };
  function checkKinds(left, first, right, second) {
    const kinds = [first.kind, second.kind];
    if (kinds[0] === kinds[1] || kinds.includes(UNKNOWN)) return;
    const held = `${wordsOfNode(left)} is ${kinds[0]}, ${wordsOfNode(right)} is ${kinds[1]}`;
    const isNumber = second.isConstant && second.kind === A_NUMBER;
    const hint = kinds[0] === A_TEXT && isNumber ? `; write '${wordsOfNode(right)}'` : "";
    throw failure(right, `${held}: these do not compare${hint}`);
  }

  return truth(parse(text)).at;
}

// The texts of a row in lower case, whether their columns are shown or not.
function textsOf(i) {
  words ??= Array.from({ length: page.n_rows }, () => []);
  if (!words[i].length) {
    const told = Object.keys(page.filter.kinds).filter((name) => page.filter.kinds[name] === A_TEXT);
    words[i] = told.map((name) => (page.rows[name][i] ?? "").toLowerCase());
  }
  return words[i];
}

// The test of a row that a text in the filter stands for, and what is wrong with it: then no row passes.
function filterOf(text) {
  if (!text.trim()) return { test: () => true, problem: "" };
  try {
    const at = testOf(text);
    return { test: (i) => at(i) === true, problem: "" };
  } catch (error) {
    if (!(error instanceof WrongExpression)) throw error;
    return { test: () => false, problem: error.message };
  }
}
