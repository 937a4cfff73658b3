// A load that grows in two steps and ends: where does the answer time begin to rise?

import { createClient } from './helpers/openaiGeneric.js';
import { limit, seconds, tags, think, users } from './helpers/settings.js';

export const options = {
  stages: [
    { duration: seconds(30), target: users(5) },
    { duration: seconds(60), target: users(5) },
    { duration: seconds(30), target: users(10) },
    { duration: seconds(60), target: users(10) },
    { duration: seconds(30), target: 0 },
  ],
  tags: tags('ramp-up'),
  thresholds: {
    http_req_duration: [`p(95)<${limit('MAX_DURATION_MS', 10000)}`],
    http_req_failed: [`rate<${limit('MAX_FAILED_RATE', 0.05)}`],
  },
};

const QUESTIONS = [
  'Why is the sky blue?',
  'What does a compiler do?',
  'How do vaccines work?',
  'Who invented the printing press?',
  'What makes bread rise?',
];

const client = createClient();

export default function () {
  const question = QUESTIONS[Math.floor(Math.random() * QUESTIONS.length)];
  client.chatComplete({ messages: [{ role: 'user', content: question }], max_tokens: 150 });
  think(2, 5);
}
