// A steady load: five people in a chat, for a minute.

import { createClient } from './helpers/openaiGeneric.js';
import { lasting, limit, tags, think, users } from './helpers/settings.js';

export const options = {
  vus: users(5),
  duration: lasting(60),
  tags: tags('chat-completions'),
  thresholds: {
    http_req_duration: [`p(95)<${limit('MAX_DURATION_MS', 5000)}`],
    http_req_failed: [`rate<${limit('MAX_FAILED_RATE', 0.01)}`],
  },
};

const client = createClient();

export default function () {
  client.chatComplete({
    messages: [
      { role: 'system', content: 'You answer in plain words.' },
      { role: 'user', content: 'Which parts does a computer have, and what does each of them do?' },
    ],
    max_tokens: 100,
  });
  think(1, 4);
}
