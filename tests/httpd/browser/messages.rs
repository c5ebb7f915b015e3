//! Messages of every type a page can send, and of both it can receive.

use super::{site, visit};
use serde_json::json;

#[test]
fn texts() {
    let server = site().start();
    let page = visit(&server);
    let texts = json!([
        "",
        "hello",
        "你好，世界",
        "😀 👨‍👩‍👧‍👦 🇨🇳",
        "\u{0}\r\n\t\u{7f}",
        "\u{feff}mark",
        "é e\u{301} \u{ffff} \u{10ffff}"
    ]);
    let seen = page.run_with(
        r#"
        const recorder = await open(ws("/echo"));
        for (const text of arguments[0]) recorder.socket.send(text);
        await recorder.seen("message", arguments[0].length);
        return recorder.messages();
        "#,
        vec![texts.clone()],
    );
    assert_eq!(seen, texts);
    // What is no string becomes one; what is no text (a lone surrogate) becomes U+FFFD.
    let seen = page.run(
        r#"
        const recorder = await open(ws("/echo"));
        for (const data of [42, null, undefined, ["a", "b"], { toString: () => "me" }, "a\ud800b"]) {
          recorder.socket.send(data);
        }
        await recorder.seen("message", 6);
        return [...recorder.messages(), attempt(() => recorder.socket.send())];
        "#,
    );
    assert_eq!(seen, json!(["42", "null", "undefined", "a,b", "me", "a\u{fffd}b", "TypeError TypeError"]));
}

/// Every type of binary data, received as either type.
#[test]
fn binary_data() {
    let server = site().start();
    let page = visit(&server);
    for (binary_type, name) in [("blob", "Blob"), ("arraybuffer", "ArrayBuffer")] {
        let seen = page.run_with(
            r#"
            const { buffer } = Uint8Array.from({ length: 16 }, (_, index) => 0xf0 + index);
            const recorder = await open(ws("/echo"));
            recorder.socket.binaryType = arguments[0];
            const sent = [
              buffer,
              new ArrayBuffer(0),
              new Uint8Array(buffer),
              new Uint8Array(buffer, 3, 4),
              new Uint16Array(buffer, 2, 3),
              new Float64Array(buffer, 8),
              new DataView(buffer, 5, 2),
              new Blob([buffer]),
              new Blob([]),
              new Blob(["你好 ", new Uint8Array(buffer, 14)], { type: "text/plain" }),
              new Blob([buffer]).slice(1, 3),
              "a text between them",
              new Uint8Array(0),
            ];
            for (const data of sent) recorder.socket.send(data);
            // What was sent is sent: this changes nothing any more.
            new Uint8Array(buffer).fill(0);
            await recorder.seen("message", sent.length);
            recorder.socket.close();
            await recorder.seen("close");
            const types = recorder.messages().filter((data) => data instanceof Blob).map(({ type }) => type);
            return [await recorder.transcript(), [...new Set(types)]];
            "#,
            vec![json!(binary_type)],
        );
        let binary = |bytes: &[u8]| {
            let data: Vec<_> = [json!(name)].into_iter().chain(bytes.iter().map(|byte| json!(byte))).collect();
            json!(["message", data])
        };
        let all: Vec<u8> = (0xf0..=0xff).collect();
        let transcript = json!([
            ["open"],
            binary(&all),
            binary(&[]),
            binary(&all),
            binary(&all[3..7]),
            binary(&all[2..8]),
            binary(&all[8..]),
            binary(&all[5..7]),
            binary(&all),
            binary(&[]),
            binary(&["你好 ".as_bytes(), &all[14..]].concat()),
            binary(&all[1..3]),
            ["message", "a text between them"],
            binary(&[]),
            ["close", 1005, "", true],
        ]);
        let types = if binary_type == "blob" { json!([""]) } else { json!([]) };
        assert_eq!(seen, json!([transcript, types]));
    }
}

/// `binaryType` holds for the messages that come, not for those that were sent; another value is ignored.
#[test]
fn the_binary_type_may_change() {
    let server = site().start();
    let page = visit(&server);
    let seen = page.run(
        r#"
        const recorder = await open(ws("/echo"));
        const { socket } = recorder;
        const types = [];
        let count = 0;
        for (const type of ["blob", "arraybuffer", "ArrayBuffer", "text", "blob"]) {
          socket.send(new Uint8Array([++count]));
          socket.binaryType = type;
          types.push(socket.binaryType);
          await recorder.seen("message", count);
        }
        socket.close();
        await recorder.seen("close");
        return [types, await recorder.transcript()];
        "#,
    );
    let transcript = json!([
        ["open"],
        ["message", ["Blob", 1]],
        ["message", ["ArrayBuffer", 2]],
        ["message", ["ArrayBuffer", 3]],
        ["message", ["ArrayBuffer", 4]],
        ["message", ["Blob", 5]],
        ["close", 1005, "", true],
    ]);
    assert_eq!(seen, json!([["blob", "arraybuffer", "arraybuffer", "arraybuffer", "blob"], transcript]));
}

/// As large as the server takes them, of each type, and with every length format of the protocol.
#[test]
fn sizes() {
    let server = site().start();
    let page = visit(&server);
    let seen = page.run(
        r#"
        const recorder = await open(ws("/echo"));
        recorder.socket.binaryType = "arraybuffer";
        const sizes = [1, 125, 126, 127, 65535, 65536, 1048576];
        const pattern = Uint8Array.from({ length: 1048576 }, (_, index) => (index * 7 + (index >> 8)) & 255);
        const sent = [];
        for (const size of sizes) {
          const view = pattern.subarray(0, size);
          // Three bytes of UTF-8 a character, and what is left over.
          const text = "世".repeat(size / 3) + "x".repeat(size % 3);
          sent.push(view, new Blob([view]), text);
        }
        for (const data of sent) recorder.socket.send(data);
        await recorder.seen("message", sent.length);
        const received = recorder.messages();
        return Promise.all(sent.map(async (data, index) => {
          const got = received[index];
          const equal = typeof data === "string" ? data === got : await same(data, got);
          return [typeof got === "string" ? new Blob([got]).size : got.byteLength, equal];
        }));
        "#,
    );
    let sizes = [1, 125, 126, 127, 65535, 65536, 1_048_576];
    let expected: Vec<_> =
        sizes.iter().flat_map(|size| [json!([size, true]), json!([size, true]), json!([size, true])]).collect();
    assert_eq!(seen, json!(expected));
}

/// `bufferedAmount` counts the bytes of the payloads, and gets back to nothing.
#[test]
fn buffered_amount() {
    let server = site().start();
    let page = visit(&server);
    let seen = page.run(
        r#"
        const connecting = record(ws("/echo"));
        const early = [attempt(() => connecting.socket.send("too early")), connecting.socket.bufferedAmount];
        await connecting.seen("open");
        const { socket } = connecting;
        socket.binaryType = "arraybuffer";
        const amounts = [socket.bufferedAmount];
        const mebibyte = new Uint8Array(1048576);
        const views = [mebibyte.buffer, mebibyte.subarray(1), new DataView(mebibyte.buffer, 2)];
        for (const data of ["世界", "", new Blob(["12345"]), ...views]) {
          socket.send(data);
          amounts.push(socket.bufferedAmount);
        }
        for (let more = 0; more < 20; more++) socket.send(mebibyte);
        amounts.push(socket.bufferedAmount);
        let [last, grew] = [socket.bufferedAmount, false];
        await until(() => {
          grew ||= socket.bufferedAmount > last;
          last = socket.bufferedAmount;
          return last === 0;
        });
        await connecting.seen("message", 26);
        const echoed = connecting.messages().map((data) => typeof data === "string" ? data : data.byteLength);
        socket.close();
        // The socket is closing: this is never sent, but counted, and stays so.
        socket.send("never sent");
        const after = [socket.bufferedAmount >= 10, socket.bufferedAmount];
        await connecting.seen("close");
        after[1] = after[1] === socket.bufferedAmount;
        return { early, amounts, grew, echoed, after, messages: connecting.messages().length };
        "#,
    );
    let mebibyte = 1_048_576;
    let few = 11 + 3 * mebibyte - 3;
    let mut echoed =
        vec![json!("世界"), json!(""), json!(5), json!(mebibyte), json!(mebibyte - 1), json!(mebibyte - 2)];
    echoed.extend(vec![json!(mebibyte); 20]);
    let expected = json!({
        "early": ["DOMException InvalidStateError", 0],
        "amounts": [0, 6, 6, 11, 11 + mebibyte, 10 + 2 * mebibyte, few, few + 20 * mebibyte],
        "grew": false,
        "echoed": echoed,
        "after": [true, true],
        "messages": 26,
    });
    assert_eq!(seen, expected);
}

/// The same messages with compression, whoever may refer to earlier ones.
#[test]
fn compressed() {
    let server = site()
        .config("WebSocketCompression On\nWebSocketMaxMessageSize 10485760")
        .config("<Location \"/echo\">\n  WebSocketCompressionContextTakeover Both\n</Location>")
        .config("<Location \"/frugal\">\n  WebSocketHandler echo\n</Location>")
        .start();
    let page = visit(&server);
    for (path, extensions) in [
        ("/echo", "permessage-deflate"),
        ("/frugal", "permessage-deflate; server_no_context_takeover; client_max_window_bits=11"),
    ] {
        let seen = page.run_with(
            r#"
            const recorder = await open(ws(arguments[0]));
            recorder.socket.binaryType = "arraybuffer";
            const words = Array.from({ length: 5000 }, (_, index) => `${(index * index) % 1013} sheep 羊; `).join("");
            const messages = ["", "hello", words, words, words.repeat(60)];
            for (const size of [0, 1, 255, 256, 70_000, 10 << 20]) {
              messages.push(Uint8Array.from({ length: size }, (_, index) => (index * index) % 251));
            }
            messages.push(crypto.getRandomValues(new Uint8Array(60_000)));
            for (const message of messages) recorder.socket.send(message);
            await recorder.seen("message", messages.length);
            const echoed = await Promise.all(recorder.messages().map((data, index) =>
              typeof data === "string" ? data === messages[index] : same(data, messages[index])));
            recorder.socket.close(1000);
            await recorder.seen("close");
            const [close] = (await recorder.transcript()).slice(-1);
            return [recorder.socket.extensions, echoed, close];
            "#,
            vec![json!(path)],
        );
        assert_eq!(seen, json!([extensions, vec![true; 12], ["close", 1000, "", true]]));
    }
}
