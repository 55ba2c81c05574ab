// A picture of an answer's probabilities: each token shaded by its own, and what else might have stood there.
import { useRef, useState } from "preact/hooks";
import type { Token } from "./chat_data";

const kMostTokens = 4000;

function level(logprob: number): number {
  const part = Math.exp(logprob);
  return part > 0.9 ? 0 : part > 0.6 ? 1 : part > 0.3 ? 2 : part > 0.1 ? 3 : 4;
}

function shown(token: string): string {
  return token.replace(/\n/g, "⏎").replace(/ /g, "·") || "∅";
}

function per100(logprob: number): string {
  const part = 100 * Math.exp(logprob);
  return part >= 99.95 ? "100%" : part >= 0.1 ? `${part.toFixed(1)}%` : "<0.1%";
}

export function Probabilities({ tokens }: { tokens: Token[] }) {
  const list = useRef<HTMLDivElement>(null);
  const told = tokens.slice(0, kMostTokens);
  // At first the one that was least likely.
  const [chosen, setChosen] = useState(() => told.reduce((least, { logprob }, at) => (logprob < told[least].logprob ? at : least), 0));
  const token = told[Math.min(chosen, told.length - 1)];
  if (!token) return null;
  const mean = Math.exp(told.reduce((sum, { logprob }) => sum + logprob, 0) / told.length);
  const move = (to: number) => {
    const next = Math.max(0, Math.min(to, told.length - 1));
    setChosen(next);
    list.current?.querySelectorAll<HTMLButtonElement>("button")[next]?.focus();
  };
  const alternatives = token.top.some((other) => other.token === token.token) ? token.top : [token, ...token.top];
  return (
    <div class="probabilities">
      <div
        ref={list}
        class="tokens"
        role="group"
        aria-label="Tokens of the answer; arrow keys go from one to the next"
        onKeyDown={(event) => {
          const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key];
          if (step === undefined) return;
          event.preventDefault();
          move(chosen + step);
        }}
      >
        {told.map((one, idx) => (
          <button
            key={idx}
            type="button"
            class={`token p${level(one.logprob)}${one.isThought ? " thought-token" : ""}`}
            tabIndex={idx === chosen ? 0 : -1}
            aria-pressed={idx === chosen}
            aria-label={`${one.token || "nothing"}, ${per100(one.logprob)}`}
            onClick={() => setChosen(idx)}
            onPointerEnter={() => setChosen(idx)}
          >
            {one.token.includes("\n") ? shown(one.token) : one.token || "∅"}
          </button>
        ))}
      </div>
      <table class="alternatives" aria-live="polite">
        <caption>
          Token {Math.min(chosen, told.length - 1) + 1} of {told.length}; the mean probability is {(100 * mean).toFixed(0)}%
          {tokens.length > kMostTokens && `, of ${tokens.length} in all`}
        </caption>
        <tbody>
          {alternatives.map((other, idx) => (
            <tr key={idx} class={other.token === token.token ? "taken" : ""}>
              <th scope="row"><code>{shown(other.token)}</code></th>
              <td class="number">{per100(other.logprob)}</td>
              <td class="wide">
                <svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
                  <rect class="track" width="100" height="6" />
                  <rect class="fill" width={100 * Math.exp(other.logprob)} height="6" />
                </svg>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
