"""/kimi/accounts in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from kimi_provider.admin.rows import FAILURES
from kimi_provider.admin.words import FAILURE_EVENTS
from kimi_provider.store import StoredCooldown, StoredFailure, StreamWish, Usage
from tests.harness import Simulator

from .world import KEY, Site

expect.set_options(timeout=30_000)

Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens the page in a fresh browser profile, signed in; whatever the browser complains of fails the test."""
    complaints: list[str] = []
    contexts = []

    def open_(site: Site, *, sign_in: bool = True, **more: Any) -> Page:
        context = browser.new_context(**more)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
        page.goto(f"{site.url}/kimi/accounts")
        if sign_in:
            page.get_by_label("Master key").or_(page.get_by_label("Kunci utama")).fill(KEY)
            page.keyboard.press("Enter")
            page.wait_for_selector("#table")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


def row_of(page: Page, short_id: str) -> Any:
    return page.locator(".accounts tbody tr", has_text=short_id)


def test_a_wrong_key_is_refused_in_one_sentence_and_the_right_one_opens(site: Site, visit: Visit) -> None:
    page = visit(site, sign_in=False)
    page.get_by_label("Master key").fill("sk-wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the master key of this gateway.")
    assert "sk-wrong" not in page.content()
    page.get_by_label("Master key").fill(KEY)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("No account yet")).to_be_visible()
    assert KEY not in page.content()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Master key")).to_be_visible()
    page.goto(f"{site.url}/kimi/accounts")
    expect(page.get_by_label("Master key")).to_be_visible()


def test_an_account_is_added_checked_refreshed_paused_and_removed(site: Site, visit: Visit) -> None:
    page = visit(site)
    tokens = site.simulator.login("ada", level="LEVEL_BASIC")
    expect(page.get_by_text("close the window without logging out")).to_be_visible()
    page.get_by_label("Paste a refresh_token").fill(f"Bearer {tokens['refresh_token']}")
    page.get_by_role("button", name="Add", exact=True).click()
    message = page.locator("#message")
    short_id = tokens["user_id"][:8]
    expect(message).to_contain_text(
        f"Added {short_id}: refresh token, region overseas, plan Moderato, expires in 90 d."
    )
    expect(page.get_by_label("Paste a refresh_token")).to_have_value("")
    row = row_of(page, short_id)
    expect(row.locator(".badge")).to_have_text("ready")
    expect(row).to_contain_text("in 90 d")
    for secret in tokens["refresh_token"], KEY:
        assert secret[-40:] not in page.content()

    row.get_by_role("button", name="Check").click()
    expect(message).to_have_text(f"{short_id} is alive.")
    row.get_by_role("button", name="Refresh").click()
    expect(message).to_have_text(f"{short_id}: tokens renewed.")
    row.get_by_role("button", name="Pause").click()
    expect(row.locator(".badge")).to_have_text("paused")
    assert [one["state"] for one in site.rows()] == ["paused"]
    row.get_by_role("button", name="Resume").click()
    expect(row.locator(".badge")).to_have_text("ready")

    asked: list[str] = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    row.get_by_role("button", name="Remove").click()
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
    row.get_by_role("button", name="Remove").click()
    expect(row).to_have_count(0)
    assert len(asked) == 2
    assert short_id in asked[0]
    assert site.rows() == []


def test_a_recording_is_added_as_a_file(site: Site, visit: Visit, tmp_path: Path) -> None:
    token = site.simulator.login("ada")["access_token"]
    headers = [{"name": "authorization", "value": f"Bearer {token}"}]
    entries = [{"pad": "x" * 3_000_000, "request": {"url": f"{site.simulator.url}/", "headers": headers}}]
    (path := tmp_path / "kimi.har").write_text(json.dumps({"log": {"entries": entries}}))
    page = visit(site)
    page.get_by_label("or choose a file").set_input_files(path)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#message")).to_contain_text("dies in 15 min and has no refresh partner")


@pytest.mark.parametrize(
    ("pasted", "said"),
    [
        ("hello world", "No Kimi credential was found"),
        ("sk-kimi-0123456789abcdef", "moonshot/"),
        ("", "Nothing was pasted"),
    ],
)
def test_a_paste_without_a_credential_is_said(site: Site, visit: Visit, pasted: str, said: str) -> None:
    page = visit(site)
    page.get_by_label("Paste a refresh_token").fill(pasted)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#message .bad, #message .good")).to_contain_text(said)
    assert site.rows() == []


def test_the_table_follows_what_happens_elsewhere(site: Site, visit: Visit) -> None:
    page = visit(site)
    expect(page.get_by_text("No account yet")).to_be_visible()
    ada = site.add("ada")
    expect(row_of(page, ada["short_id"]).locator(".badge")).to_have_text("ready")
    site.http.post(f"/kimi/api/accounts/{ada['id']}/disable")
    expect(row_of(page, ada["short_id"]).locator(".badge")).to_have_text("paused")


def test_the_keyboard_does_it_all_and_keeps_its_place(site: Site, visit: Visit) -> None:
    ada = site.add("ada")
    page = visit(site)
    pause = row_of(page, ada["short_id"]).get_by_role("button", name="Pause")
    for _ in range(12):
        page.keyboard.press("Tab")
        if pause.evaluate("element => element === document.activeElement"):
            break
    expect(pause).to_be_focused()
    check = row_of(page, ada["short_id"]).get_by_role("button", name="Check")
    check.focus()
    site.add("bob")  # the table is replaced under the keyboard's feet
    expect(page.locator(".accounts tbody tr")).to_have_count(2)
    expect(check).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_have_text(f"{ada['short_id']} is alive.")


def test_expiry_is_told_in_colours_and_in_words(site: Site, visit: Visit) -> None:
    day = 86_400
    ages = {
        "fresh": ({"refresh_expires_in": 80 * day}, "good", "in 80 d", "ready"),
        "soon": ({"refresh_expires_in": 3 * day}, "warn", "in 3 d", "expires soon"),
        "today": ({"refresh_expires_in": 10 * 3600}, "bad", "in 10 h", "expires soon"),
        "cookie": ({"kind": "cookie", "expires_in": 900}, "bad", "no refresh token", "expires soon"),
    }
    rows = {name: site.add(name, **more) for name, (more, *_) in ages.items()}
    page = visit(site)
    colours = {}
    for name, (_, tone, words, state) in ages.items():
        row = row_of(page, rows[name]["short_id"])
        expect(row).to_contain_text(words)
        expect(row.locator(".badge")).to_have_text(state)
        expect(row.locator(f".tone.{tone}").first).to_be_visible()
        colours[tone] = row.locator(".tone").first.evaluate("element => getComputedStyle(element).color")
    assert len({*colours.values()}) == 3


def test_a_phone_shows_it_without_scrolling_sideways(site: Site, visit: Visit) -> None:
    ada = site.add("ada")
    page = visit(site, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    row = row_of(page, ada["short_id"])
    expect(row).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for button in row.get_by_role("button").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["x"] + box["width"] <= 360
    row.get_by_role("button", name="Pause").tap()
    expect(row.locator(".badge")).to_have_text("paused")


def test_it_speaks_indonesian(state_url: str, simulator: Simulator, visit: Visit) -> None:
    with Site(state_url, simulator, kimi_lang="id") as site:
        page = visit(site, sign_in=False)
        page.get_by_label("Kunci utama").fill("sk-salah")
        page.get_by_role("button", name="Masuk").click()
        expect(page.get_by_role("alert")).to_have_text("Itu bukan kunci utama gerbang ini.")
        page.get_by_label("Kunci utama").fill(KEY)
        page.get_by_role("button", name="Masuk").click()
        page.get_by_label("Tempel refresh_token").fill("halo")
        page.get_by_role("button", name="Tambah").click()
        expect(page.locator("#message")).to_contain_text("Tidak ada kredensial Kimi di dalamnya.")
        ada = site.add("ada")
        expect(row_of(page, ada["short_id"]).locator(".badge")).to_have_text("siap")
        assert page.locator("html").get_attribute("lang") == "id"


def test_it_works_below_a_prefix_and_with_two_workers(state_url: str, simulator: Simulator, visit: Visit) -> None:
    with Site(state_url, simulator, root="/team/ai") as one, Site(state_url, simulator, root="/team/ai") as two:
        ada = one.add("ada")
        page = visit(one)
        expect(row_of(page, ada["short_id"])).to_be_visible()
        # Cookies know no ports: the other worker gets the session that the first one gave.
        page.goto(f"{two.url}/kimi/accounts")
        row = row_of(page, ada["short_id"])
        row.get_by_role("button", name="Pause").click()
        expect(row.locator(".badge")).to_have_text("paused")
        assert [row["state"] for row in one.rows()] == ["paused"]


def test_another_site_changes_nothing_nor_does_a_request_without_the_page_s_token(site: Site, visit: Visit) -> None:
    ada = site.add("ada")
    page = visit(site)
    status = page.evaluate(
        """async account => (await fetch("accounts/pause", {method: "POST", headers: {"x-csrf-token": "wrong"},
        body: new URLSearchParams({account})})).status""",
        ada["id"],
    )
    assert status == 403
    form = f'<form method=post action="{site.url}/kimi/accounts/pause"><input name=account value="{ada["id"]}">'
    page.route(
        "http://elsewhere.test/",
        lambda route: route.fulfill(content_type="text/html", body=f"{form}<button>A prize</button></form>"),
    )
    page.goto("http://elsewhere.test/")
    with page.expect_response("**/kimi/accounts/pause") as refused:
        page.get_by_role("button", name="A prize").click()
    assert refused.value.status == 403
    assert [row["state"] for row in site.rows()] == ["ok"]
    page.goto(f"{site.url}/kimi/accounts")  # whose session goes on
    expect(row_of(page, ada["short_id"])).to_be_visible()


def test_an_ended_session_asks_for_the_key_again(site: Site, visit: Visit) -> None:
    page = visit(site)
    page.context.clear_cookies()
    expect(page.get_by_label("Master key")).to_be_visible()  # at the next look for news


def test_cool_downs_and_failures_are_shown(site: Site, visit: Visit) -> None:
    ada = site.add("ada")
    store = site.roster.store
    assert store is not None
    page = visit(site)
    failure = StoredFailure(code="quota_exhausted", message="quota <b>used up</b>")
    with store.write() as rows:
        rows.accounts.cool(
            StoredCooldown(account_id=ada["id"], scope="SCENARIO_CHAT", failure=failure, hard=True, left_s=900)
        )
        rows.usage.count(Usage(account_id=ada["id"], model="kimi", answers=12, failures=3, prompt_tokens=45_000))
        rows.streams("another worker").take(StreamWish(account_id=ada["id"], held=2, limit=2))
        rows.streams("a third one").take(StreamWish(account_id=ada["id"], held=1, limit=2))
    row = row_of(page, ada["short_id"])
    expect(row.locator("td").nth(3)).to_have_text("2 1 waiting", use_inner_text=False)
    expect(row.locator(".badge")).to_have_text("cooling down")
    expect(row).to_contain_text("chat for another 15 min")
    expect(row).to_contain_text("quota <b>used up</b>")  # as text
    expect(row).to_contain_text("3 failed")
    expect(row).to_contain_text("about 45 000 tokens")
    expect(page.locator(".failures tbody tr")).to_have_count(1)


@pytest.mark.parametrize(
    ("language", "now", "words"),
    [
        ("en", "k3-agent for another 15 min", ["stopped: account suspended", "put aside for 15 min (k3-agent): "]),
        ("id", "k3-agent 15 mnt lagi", ["dihentikan: Akun ditangguhkan", "disisihkan selama 15 mnt (k3-agent): Perlu"]),
    ],
)
def test_what_happened_is_told_in_words(
    state_url: str, simulator: Simulator, visit: Visit, language: str, now: str, words: list[str]
) -> None:
    with Site(state_url, simulator, kimi_lang=language) as site:
        ada, bob = site.add("ada"), site.add("bob")
        assert site.roster.store is not None
        plan = StoredFailure(code="membership_required", message="not in the plan")
        with site.roster.store.write() as rows:
            rows.accounts.cool(
                StoredCooldown(account_id=ada["id"], scope="SCENARIO_A/k3-agent", failure=plan, hard=False, left_s=900)
            )
            rows.accounts.stop(bob["id"], StoredFailure(code="account_suspended", message="flagged"))
        page = visit(site)
        expect(row_of(page, ada["short_id"]).first).to_contain_text(now)
        for number, told in enumerate(words):
            expect(page.locator(".failures tbody tr").nth(number)).to_contain_text(told)


def test_every_failure_has_its_words() -> None:
    assert set(FAILURE_EVENTS) == FAILURES


def test_a_store_that_goes_away_and_comes_back(site: Site, visit: Visit) -> None:
    ada = site.add("ada")
    page = visit(site)
    with site.with_store_that_says("SELECT * FROM gone"):
        expect(page.get_by_role("alert")).to_contain_text("The account store can't be used now")
    expect(row_of(page, ada["short_id"]).locator(".badge")).to_have_text("ready")
    expect(page.get_by_role("alert")).to_have_count(0)
