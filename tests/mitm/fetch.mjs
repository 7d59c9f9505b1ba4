// Node's own fetch and https, without any proxy code: one streamed call each.
import https from "node:https";

const body = JSON.stringify({ model: "gpt-5", stream: true, messages: [{ role: "user", content: "Hello" }] });
const headers = { "content-type": "application/json", authorization: `Bearer ${process.env.OPENAI_API_KEY}` };
const url = "https://api.openai.com/v1/chat/completions";

const answer = await fetch(url, { method: "POST", headers, body });
let text = "";
for await (const chunk of answer.body) text += new TextDecoder().decode(chunk);
console.log("fetch", answer.status, answer.headers.get("x-kimi-served-by"), text.includes("[simulator]"));

await new Promise((done, fail) => {
  const request = https.request(url, { method: "POST", headers }, (response) => {
    let text = "";
    response.on("data", (chunk) => (text += chunk));
    response.on("end", () => {
      console.log("https", response.statusCode, response.headers["x-kimi-served-by"], text.includes("[simulator]"));
      done();
    });
  });
  request.on("error", fail);
  request.end(body);
});
