// What a longer prompt costs: the same load with prompts of three lengths, timed apart.

import exec from 'k6/execution';
import { Trend } from 'k6/metrics';

import { createClient } from './helpers/openaiGeneric.js';
import { limit, tags, think, users } from './helpers/settings.js';

export const options = {
  // Three people share fifteen questions. The number of the question decides its length, not the person who
  // asks it: there are five of each, however fast anyone is.
  vus: 3 * users(1),
  iterations: 15 * users(1),
  tags: tags('prompt-length'),
  thresholds: {
    http_req_duration: [`p(90)<${limit('MAX_DURATION_MS', 10000)}`],
  },
};

const PROMPTS = [
  {
    time: new Trend('short_prompt_response_time', true),
    text: 'What is the longest river of Africa?',
  },
  {
    time: new Trend('medium_prompt_response_time', true),
    text:
      'Explain how a refrigerator moves heat from a cold place to a warm one. Name the parts that the coolant passes, ' +
      'what happens to it in each, and why the back of the machine is warm while the inside is cold.',
  },
  {
    time: new Trend('long_prompt_response_time', true),
    text:
      'I am preparing a lecture on the history of measuring time, for listeners who know no physics, and need an ' +
      'outline with two or three sentences on each of these points:\n' +
      '1. Shadows, water and sand: what people measured before there were clocks, and how well\n' +
      '2. The first mechanical clocks in towers, who paid for them, and what they changed in a town\n' +
      '3. The pendulum, and why it made clocks a hundred times better\n' +
      '4. Longitude at sea: why a ship needs the time, and who solved it\n' +
      '5. Railways and time zones: how places gave up their own noon\n' +
      '6. Quartz: how a crystal counts, and how a watch became cheap\n' +
      '7. Atomic clocks, the second as it is defined today, and satellites that find our position with it\n' +
      '8. Leap seconds, and the quarrel over whether to keep them\n\n' +
      'End with three questions for a discussion, and say for each point which picture you would show.',
  },
];

const client = createClient();

export default function () {
  const prompt = PROMPTS[exec.scenario.iterationInTest % PROMPTS.length];
  const response = client.chatComplete({
    messages: [
      { role: 'system', content: 'You answer in plain words.' },
      { role: 'user', content: prompt.text },
    ],
    max_tokens: 200,
  });
  prompt.time.add(response.timings.duration);
  think(3, 3);
}
