// More and more people with long questions and long answers: what gives first, and does it give well?

import { createClient } from './helpers/openaiGeneric.js';
import { limit, seconds, tags, think, users } from './helpers/settings.js';

export const options = {
  stages: [
    { duration: seconds(60), target: users(10) },
    { duration: seconds(180), target: users(10) },
    { duration: seconds(120), target: users(20) },
    { duration: seconds(180), target: users(20) },
    { duration: seconds(120), target: users(30) },
    { duration: seconds(180), target: users(30) },
    { duration: seconds(60), target: 0 },
  ],
  tags: tags('stress'),
  thresholds: {
    http_req_duration: [`p(95)<${limit('MAX_DURATION_MS', 15000)}`],
    http_req_failed: [`rate<${limit('MAX_FAILED_RATE', 0.1)}`],
  },
};

const QUESTIONS = [
  'Compare three ways to store the same data for a service that reads often and writes rarely: a relational ' +
    'database, a key-value store, and files. For each say what it is good at, what it costs to run, and how it fails.',
  'A city wants half of its commuters to leave their cars at home within ten years. Lay out a plan with measures ' +
    'for the first year, the first five and the last five, what each costs, and how anyone would know that it works.',
  'Explain how a modern processor executes instructions out of order, why that makes programs faster, what the ' +
    'memory model has to promise to programmers, and which mistakes become visible when several threads share data.',
  'Tell the history of the lighthouse from fires on hills to automatic lamps: who built them, who paid, how the ' +
    'light was made and seen from far away, and what became of the keepers when nobody was needed any more.',
  'Design an experiment that shows whether a new way to teach reading is better than the old one. Say who takes ' +
    'part, how they are chosen, what is measured and when, what could mislead you, and how you would rule it out.',
];

const client = createClient();

export default function () {
  const question = QUESTIONS[Math.floor(Math.random() * QUESTIONS.length)];
  client.chatComplete({ messages: [{ role: 'user', content: question }], max_tokens: 500 });
  think(0.5, 1.5);
}
