// What a person in front of a chat feels: how soon the first word comes, and how fast the others follow.

import { createClient } from './helpers/openaiGeneric.js';
import { lasting, limit, tags, think, users } from './helpers/settings.js';

export const options = {
  vus: users(10),
  duration: lasting(60),
  tags: tags('streaming'),
  thresholds: {
    ttft: [`p(95)<${limit('MAX_TTFT_MS', 2000)}`],
    tpot: [`p(95)<${limit('MAX_TPOT_MS', 100)}`],
    http_req_failed: [`rate<${limit('MAX_FAILED_RATE', 0.01)}`],
    // A stream that breaks has status 200 all the same.
    checks: [`rate>${1 - limit('MAX_FAILED_RATE', 0.01)}`],
  },
};

const QUESTIONS = [
  'How does a bridge carry its own weight?',
  'What would you pack for a week in the mountains?',
  'Describe the taste of an orange to someone who never had one.',
  'Why do languages change?',
];

const client = createClient();

export default function () {
  const question = QUESTIONS[Math.floor(Math.random() * QUESTIONS.length)];
  client.chatStream({ messages: [{ role: 'user', content: question }], max_tokens: 200 });
  think(0.5, 1.5);
}
