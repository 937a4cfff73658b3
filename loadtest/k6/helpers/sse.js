// The events of a streamed chat completion.

/** What a body of server-sent events holds; null counts as an empty one. */
export function read(body) {
  const text = body || '';
  const stream = {
    // Events with text, reasoning or a tool call.
    contents: 0,
    usage: null,
    // A finish_reason and the end mark, and no error in between.
    isComplete: false,
    beginsWithComment: text.startsWith(':'),
  };
  let isFinished = false;
  let isFailed = false;
  for (const line of text.split('\n')) {
    if (!line.startsWith('data:')) {
      continue;
    }
    const data = line.slice('data:'.length).trim();
    if (data === '[DONE]') {
      stream.isComplete = isFinished && !isFailed;
      break;
    }
    const event = parse(data);
    if (event === null || event.error) {
      isFailed = true;
      continue;
    }
    stream.usage = event.usage || stream.usage;
    for (const choice of event.choices || []) {
      stream.contents += hasContent(choice.delta || {}) ? 1 : 0;
      isFinished = isFinished || (Boolean(choice.finish_reason) && choice.finish_reason !== 'abort');
    }
  }
  return stream;
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}

function hasContent(delta) {
  return Boolean(delta.content || delta.reasoning_content || delta.reasoning || delta.tool_calls);
}
