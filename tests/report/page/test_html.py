"""The page is one file that holds all it shows; what it does in a browser is tested in tests/browser."""

import json
import re

import pytest

from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.files import read_json, write_json
from lmexp.report.page.curves import MAX_POINTS, MAX_RUN_POINTS
from lmexp.report.page.html import report_page, write_report
from tests.analysis.test_findings import study_of
from tests.report.synthetic import QUESTION, config, write_run, write_study

HOSTILE = "</script><script>alert(1)</script><!--\"'&"


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = write_study(tmp_path_factory.mktemp("outputs"))
    return write_report(load_study([folder]), folder).read_text()


def test_it_says_the_question_and_the_findings(page):
    assert QUESTION in page and "<h1>demo</h1>" in page
    assert "precision bf16 against fp32: loss +0.0100" in page
    assert "this device has no fp16" in page and "the loss was NaN at step 40" in page


def test_a_command_in_the_answer_is_code_and_a_name_in_it_is_no_markup(tmp_path):
    runs = [({"precision": "fp32"}, 2.0, 9.0), ({"precision": "bf16"}, 2.1, 5.0)]
    study = study_of(tmp_path, runs, {"precision": ["fp32", "bf16"]}, name="<b>a")
    found = report_page(study).split('id="findings">')[1].split("</section>")[0]
    assert (
        "<code>lmexp sweep &#x27;&lt;b&gt;a&#x27; precision=bf16 sweep.seeds=4</code>" in found and "<b>" not in found
    )


def test_it_forbids_every_request_and_names_no_address_to_load(page):
    assert "default-src 'none'" in page
    ours = page[: page.index('<script type="module">')] + page[page.rindex('<script type="module">') :]
    assert not re.search(r"(src|href)=.(?!data:|#)|url\(|@import", ours)
    assert "connect-src" not in page and data_of(page)["version"] is None


def test_a_served_page_may_ask_its_own_server_and_nobody_else(tmp_path):
    folder = write_study(tmp_path)
    page = report_page(load_study([folder]), version="abc")
    policy = re.search(r'content="(default-src.*?)"', page, re.S)[1]
    assert "default-src 'none'" in policy and policy.endswith("connect-src 'self'")
    assert data_of(page)["version"] == "abc"


def test_vega_is_there_once_and_the_page_is_small(page):
    assert page.count("window.vegaEmbed=") == 1
    assert len(page) < 1_500_000


def test_the_table_leads_with_axes_quality_and_cost_and_has_the_rest(page):
    columns = data_of(page)["columns"]
    lead = [column["name"] for column in columns if column["lead"]]
    assert lead[:6] == ["frontier", "slug", "model", "model.n_layers", "precision", "seed"]
    assert {"loss", "perplexity", "bits_per_byte", "train_seconds", "train_flops", "state"} <= set(lead)
    assert {"run_id", "reason", "dtype_weights"} <= {column["name"] for column in columns} - set(lead)


def test_null_is_null_in_the_page(page):
    data = data_of(page)
    assert data["rows"]["loss"].count(None) == 2 and data["n_rows"] == 10
    assert data["rows"]["frontier"].count(True) == 5


def test_hostile_names_stay_text(tmp_path):
    folder = write_study(tmp_path, slug=HOSTILE)
    manifest = read_json(folder / "sweep.json")
    manifest |= {"name": HOSTILE, "question": HOSTILE, "axes": manifest["axes"] | {HOSTILE: [1, 2]}}
    manifest["skipped"] = [{"values": {HOSTILE: HOSTILE}, "reason": HOSTILE}]
    write_json(folder / "sweep.json", manifest)
    page = write_report(load_study([folder]), folder).read_text()
    assert "<script>alert" not in page
    assert HOSTILE in data_of(page)["rows"]["slug"]
    assert page.count("<script") - page.count('"<script') == 3  # data, Vega, the page's own


def test_long_curves_are_thinned_and_keep_their_ends(tmp_path):
    write_run(tmp_path / "demo" / "a", config("gpt_nano", 2, "fp32"), 3.0, points=1000)
    page = write_report(load_study([tmp_path / "demo"]), tmp_path).read_text()
    train = next(curve for curve in data_of(page)["curves"] if curve["kind"] == "train")
    assert len(train["loss"]) == MAX_RUN_POINTS and train["tokens"][0] == 1000 and train["tokens"][-1] == 1_000_000
    assert data_of(page)["curves_note"] == "Long curves are thinned."


def test_a_study_without_results_still_has_a_page(tmp_path):
    folder = write_study(tmp_path)
    for record in folder.glob("*/record.json"):
        record.unlink()
    page = write_report(load_study([folder]), folder).read_text()
    assert data_of(page)["rows"]["loss"] == [None] * 10


def test_an_unknown_quality_is_a_wrong_input(tmp_path):
    folder = write_study(tmp_path)
    with pytest.raises(UserError, match="Did you mean 'perplexity'"):
        write_report(load_study([folder]), folder, quality="perplexty")
    assert not (folder / "report.html").exists()


def test_many_curves_share_the_points_that_a_browser_draws(tmp_path, monkeypatch):
    monkeypatch.setattr("lmexp.report.page.curves.MAX_POINTS", 60)
    folder = write_study(tmp_path)
    data = data_of(write_report(load_study([folder]), folder).read_text())
    assert MAX_POINTS > 60 >= sum(len(curve["loss"]) for curve in data["curves"])
    assert {curve["kind"] for curve in data["curves"]} == {"validation"}
    assert "only validation curves are kept" in data["curves_note"]


def test_a_curve_has_dollars_where_its_run_has_a_price(tmp_path):
    folder = write_study(tmp_path)
    run = next(folder.glob("gpt_nano-l2-fp32*"))
    record = read_json(run / "record.json")
    record["rows"][0] |= {"dollars_per_hour": 3.6, "world_size": 2}
    write_json(run / "record.json", record)
    data = data_of(write_report(load_study([folder]), folder).read_text())
    priced = {curve["run_id"]: curve for curve in data["curves"] if curve["dollars"][0] is not None}
    assert list(priced) == [record["rows"][0]["run_id"]]
    curve = next(iter(priced.values()))
    assert curve["dollars"][-1] == pytest.approx(curve["seconds"][-1] * 0.002, rel=1e-5)
    assert ["dollars", "dollars"] in data["choices"]["against"]["options"]
