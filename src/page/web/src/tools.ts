// Tools that the page itself has, and those that a person describes and answers for.

export interface Tool {
  name: string;
  description: string;
  parameters: object;
  run: (args: Record<string, unknown>) => string;
}

// Arithmetic, without eval: + - * / ^ % ( ) and a few functions.
export function calculate(text: string): number {
  const tokens = text.match(/\d+\.?\d*(?:e[+-]?\d+)?|\.\d+|[a-z]+|\*\*|[-+*/^%(),]/gi) ?? [];
  if (tokens.join("") !== text.replace(/\s+/g, "")) throw new Error("only numbers, + - * / ^ % and functions are known");
  const constants: Record<string, number> = { pi: Math.PI, e: Math.E };
  const functions: Record<string, (x: number) => number> = {
    sqrt: Math.sqrt, abs: Math.abs, ln: Math.log, log: Math.log10, exp: Math.exp,
    sin: Math.sin, cos: Math.cos, tan: Math.tan, round: Math.round, floor: Math.floor,
  };
  let at = 0;
  let depth = 0;
  const takes = (...words: string[]) => (words.includes(tokens[at]) ? tokens[at++] : null);
  function value(): number {
    if (++depth > 200) throw new Error("it is nested too deeply");
    try {
      if (takes("-")) return -power();
      if (takes("+")) return power();
      if (takes("(")) {
        const inner = sum();
        if (!takes(")")) throw new Error("a ) is missing");
        return inner;
      }
      const token = tokens[at++];
      if (token === undefined) throw new Error("something is missing at the end");
      if (Object.hasOwn(constants, token)) return constants[token];
      if (Object.hasOwn(functions, token)) return functions[token](value());
      const number = Number(token);
      if (Number.isNaN(number)) throw new Error(`${token} is not known`);
      return number;
    } finally {
      depth--;
    }
  }
  function power(): number {
    const base = value();
    return takes("^", "**") ? base ** power() : base;
  }
  function product(): number {
    let result = power();
    for (let sign; (sign = takes("*", "/", "%")); ) {
      const next = power();
      result = sign === "*" ? result * next : sign === "/" ? result / next : result % next;
    }
    return result;
  }
  function sum(): number {
    let result = product();
    for (let sign; (sign = takes("+", "-")); ) result += sign === "+" ? product() : -product();
    return result;
  }
  const result = sum();
  if (at < tokens.length) throw new Error(`${tokens[at]} is not expected there`);
  return result;
}

export const ownTools: Tool[] = [
  {
    name: "get_current_time",
    description: "The date and time where the user is",
    parameters: { type: "object", properties: {}, additionalProperties: false },
    run: () => new Date().toString(),
  },
  {
    name: "calculate",
    description: "Computes an arithmetic expression such as (3 + 4) * sqrt(2)",
    parameters: {
      type: "object",
      properties: { expression: { type: "string" } },
      required: ["expression"],
      additionalProperties: false,
    },
    run: (args) => String(calculate(String(args.expression ?? ""))),
  },
];

// What a request says of the tools; throws where a person's own are no list of functions.
export function toolsFor(names: string[], described: string): object[] {
  const list: object[] = ownTools
    .filter((tool) => names.includes(tool.name))
    .map(({ name, description, parameters }) => ({ type: "function", function: { name, description, parameters } }));
  if (!described.trim()) return list;
  let parsed: unknown;
  try {
    parsed = JSON.parse(described);
  } catch (error) {
    throw new Error(`Your own tools are no JSON: ${(error as Error).message}`);
  }
  for (const item of Array.isArray(parsed) ? parsed : [parsed]) {
    const about = item?.function ?? item;
    if (typeof about?.name !== "string") throw new Error("Each of your own tools needs a name");
    list.push({ type: "function", function: about });
  }
  return list;
}

// The result of one of the page's own tools; null: it is for a person to answer.
export function runTool(name: string, args: string): string | null {
  const tool = ownTools.find((tool) => tool.name === name);
  if (!tool) return null;
  try {
    const parsed: unknown = args.trim() ? JSON.parse(args) : {};
    return tool.run(parsed && typeof parsed === "object" ? (parsed as Record<string, unknown>) : {});
  } catch (error) {
    return `error: ${(error as Error).message}`;
  }
}
