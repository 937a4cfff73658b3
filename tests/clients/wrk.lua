-- wrk -s tests/clients/wrk.lua http://HOST:PORT/v1/chat/completions
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"model":"DeepSeek-R1","messages":[{"role":"user","content":"Hi"}],"max_tokens":8}'
