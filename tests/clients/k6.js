// k6 run -e URL=http://HOST:PORT tests/clients/k6.js
import http from 'k6/http';
import { check } from 'k6';

export const options = { vus: 20, duration: '3s', thresholds: { http_req_failed: ['rate==0'], checks: ['rate==1'] } };
const body = JSON.stringify({ model: 'DeepSeek-R1', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 8 });
const params = { headers: { 'Content-Type': 'application/json' } };

export default function () {
  const answer = http.post(`${__ENV.URL}/v1/chat/completions`, body, params);
  check(answer, { 'is an answer': (a) => a.status === 200 && a.json('choices.0.message.content') !== '' });
}
