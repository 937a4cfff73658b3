// A client for OpenAI's HTTP API, and what all tests measure with it.
//
//   OPENAI_URL   where it is, without /v1   (default: http://localhost:8000)
//   API_KEY      sent as a bearer token     (default: sk-1234)
//   MODEL_NAME   the model that is asked    (default: DeepSeek-R1)
//   DEBUG        if set, every answer is printed

import { check } from 'k6';
import http from 'k6/http';
import { Trend } from 'k6/metrics';

import { read } from './sse.js';

// From the `usage` of each answer; an answer without one adds nothing.
export const promptTokens = new Trend('prompt_tokens');
export const completionTokens = new Trend('completion_tokens');
export const totalTokens = new Trend('total_tokens');
export const tokensPerSecond = new Trend('tokens_per_second');

// Milliseconds, of streams alone. README.md says how they come about.
export const timeToFirstToken = new Trend('ttft', true);
export const timePerOutputToken = new Trend('tpot', true);

const URL = (__ENV.OPENAI_URL || 'http://localhost:8000').replace(/\/+$/, '').replace(/\/v1$/, '');
const API_KEY = __ENV.API_KEY || 'sk-1234';
const MODEL = __ENV.MODEL_NAME || 'DeepSeek-R1';
// k6 gives up after a minute, which is shorter than a long answer takes. The gateway waits as long.
const TIMEOUT = '300s';

let saidThatTtftIsUnknown = false;

/**
 * `config` may hold `url`, `headers` and `options` (defaults of every request: `model`, `temperature`, …).
 * What a call is given wins over them, and is sent as it is.
 */
export function createClient(config = {}) {
  const url = config.url || URL;
  const params = {
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${API_KEY}`, ...config.headers },
    timeout: TIMEOUT,
  };
  const post = (path, body) => {
    const response = http.post(`${url}${path}`, JSON.stringify({ model: MODEL, ...config.options, ...body }), params);
    if (__ENV.DEBUG) {
      console.log(`${path}: ${response.status} in ${response.timings.duration.toFixed(0)} ms: ${response.body}`);
    }
    return response;
  };
  const chat = (more) => ({
    messages: [{ role: 'user', content: 'Hello' }],
    temperature: 0.7,
    max_tokens: 500,
    ...config.options,
    ...more,
  });

  return {
    /** One chat completion, whole. Returns k6's response. */
    chatComplete(request = {}) {
      const response = post('/v1/chat/completions', chat(request));
      const answer = json(response);
      check(response, {
        'is status 200': (r) => r.status === 200,
        'has valid JSON response': () => answer !== null,
      });
      if (response.status === 200 && answer !== null) {
        count(answer.usage, response);
      }
      return response;
    },

    /** One chat completion, as a stream of events. Returns k6's response. */
    chatStream(request = {}) {
      const response = post('/v1/chat/completions', chat({ stream: true, stream_options: { include_usage: true }, ...request }));
      const stream = read(response.body);
      const isWhole = check(response, {
        'is status 200': (r) => r.status === 200,
        'is a complete stream': () => stream.isComplete,
      });
      if (isWhole) {
        count(stream.usage, response);
        time(stream, response);
      }
      return response;
    },

    /** One request for embeddings. Returns k6's response. */
    embed(request = {}) {
      const response = post('/v1/embeddings', { input: ['Hello world'], ...request });
      const answer = json(response);
      check(response, {
        'is status 200': (r) => r.status === 200,
        'has valid JSON response': () => answer !== null,
      });
      return response;
    },
  };
}

/** The body as JSON, or null where it is none. */
function json(response) {
  try {
    return JSON.parse(response.body);
  } catch {
    return null;
  }
}

function count(usage, response) {
  if (!usage) {
    return;
  }
  promptTokens.add(usage.prompt_tokens);
  totalTokens.add(usage.total_tokens);
  // Embeddings have none.
  if (usage.completion_tokens > 0) {
    completionTokens.add(usage.completion_tokens);
    tokensPerSecond.add(usage.completion_tokens / (response.timings.duration / 1000));
  }
}

function time(stream, response) {
  // k6 has a body only when it is whole. What it tells of the way there: `waiting`, until the first byte, and
  // `receiving`, from there to the last. Sluicegate holds the head of a stream until its first content, so the
  // first byte comes with the first token. Engines and other gateways send the head at once, before the prompt
  // was read: their first byte says nothing, and neither does a comment that keeps the connection open.
  const isFirstToken = response.headers.Server === 'sluicegate' && !stream.beginsWithComment;
  if (!isFirstToken) {
    if (__VU === 1 && !saidThatTtftIsUnknown) {
      saidThatTtftIsUnknown = true;
      console.warn('ttft and tpot are left out: without Sluicegate in front, the first byte does not tell of the first token');
    }
    return;
  }
  timeToFirstToken.add(response.timings.waiting);
  // Without `usage` by events, of which one may hold several tokens.
  const tokens = stream.usage ? stream.usage.completion_tokens : stream.contents;
  if (tokens > 1) {
    timePerOutputToken.add(response.timings.receiving / (tokens - 1));
  }
}
