"""What the demo says, in English and in Japanese."""

from __future__ import annotations

from typing import Final

#: Name of a text → (English, Japanese).
WORDS: Final[dict[str, tuple[str, str]]] = {
    "title": (
        "sekisho: one workflow, one site, one broker between them   ({place})",
        "関所 (sekisho): ワークフロー側と拠点、その間に立つ中継サーバー   ({place})",
    ),
    "operator": ("operator", "管理者"),
    "engineer": ("engineer", "拠点"),
    "author": ("author", "依頼者"),
    "broker": (
        "The operator sets up a broker: TLS, one site, one submitter",
        "管理者が中継サーバーを用意します (TLS、拠点 1 つ、依頼者 1 人)",
    ),
    "site": (
        "The site keeps a secret mesh and a secret material model, and writes its manifest",
        "拠点には秘匿データ (メッシュと材料モデル) があり、何を許すかを登録簿に書きます",
    ),
    "manifest": (
        "the manifest allows one computation: two typed parameters, three inputs, three outputs",
        "登録簿が許す計算: 型付きパラメータ 2 つ、入力 3 つ、出力 3 つ",
    ),
    "workflow": (
        "The workflow sends three property files and gets a stress distribution back",
        "ワークフローが物性ファイル 3 つを送り、応力分布を受け取ります",
    ),
    "came_back": (
        "came back, and nothing else: {files}",
        "返ってきたのは次のファイルだけです: {files}",
    ),
    "timing": (
        "{total:.2f} s in all: the computation {command:.2f} s, sekisho itself {rest:.2f} s",
        "全体 {total:.2f} 秒、うち計算 {command:.2f} 秒、関所の所要時間 {rest:.2f} 秒",
    ),
    "life": (
        "the next module: {cycles} cycles to crack initiation (from stresses of {solver})",
        "次のモジュールの結果: き裂発生寿命 {cycles} サイクル (応力解析: {solver})",
    ),
    "refusals": ("What the site does not give", "拠点が渡さないもの"),
    "curious": (
        "asked for every file (**): the same {files} files came, no mesh, no log",
        "全ファイル (**) を要求しても、返るのは同じ {files} ファイルだけです",
    ),
    "refuse_file": (
        "asked for the solver's deck, which holds the mesh: refused ({code}, status {status})",
        "メッシュを含む解析入力ファイルを要求: 拒否 ({code}、終了コード {status})",
    ),
    "refuse_value": (
        "a parameter with a shell command in it: refused ({code}, status {status})",
        "シェルのコマンドを混ぜたパラメータ: 拒否 ({code}、終了コード {status})",
    ),
    "refuse_range": (
        "a parameter out of its range: refused ({code}, status {status})",
        "範囲外のパラメータ: 拒否 ({code}、終了コード {status})",
    ),
    "refuse_parameter": (
        "a parameter that the manifest does not have: refused ({code}, status {status})",
        "登録簿にないパラメータ: 拒否 ({code}、終了コード {status})",
    ),
    "refuse_command": (
        "a command that the manifest does not have: refused ({code}, status {status})",
        "登録簿にないコマンド: 拒否 ({code}、終了コード {status})",
    ),
    "confined": (
        "a program confined as the solver is read {seen} of the site's other files",
        "ソルバーと同じく閉じ込めたプログラムが読めた拠点のほかのファイル: {seen}",
    ),
    "not_confined": (
        "the same program, not confined, read {seen}",
        "同じプログラムを閉じ込めないと読めたファイル: {seen}",
    ),
    "no_confinement": (
        "this machine's kernel cannot confine programs (Landlock): left out",
        "この計算機のカーネルはプログラムを閉じ込められません (Landlock): 省きます",
    ),
    "broker_saw": ("What the broker saw of the job", "中継サーバーから見えたもの"),
    "broker_knows": (
        "it tells who, where, when and how much; the content is in envelopes that it does not open",
        "わかるのは誰が・どこへ・いつ・どれだけ、まで。中身は封筒に入ったまま運ばれます",
    ),
    "site_saw": ("What the site recorded", "拠点の記録に残ったもの"),
    "log_tells": (
        "the site's log says what ran, what left and at whose request",
        "何を実行し、何を搬出し、誰の依頼だったかが拠点の記録からわかります",
    ),
    "log_verifies": ("its chain of records is unbroken", "記録の連鎖に改ざんはありません"),
    "secrets": ("Did a secret leave?", "秘匿データは出ていったか"),
    "no_leak": (
        "no secret in {files} files ({size} bytes) of broker and workflow: "
        "database, write-ahead log, chunks, logs, results",
        "中継サーバーとワークフロー側の {files} ファイル ({size} バイト: データベース、WAL、"
        "チャンク、ログ、結果) に秘匿データはありません",
    ),
    "found_inside": (
        "the same search finds the secrets at the site ({files})",
        "同じ検索で、拠点の中では見つかります ({files})",
    ),
    "found_chunk": (
        "the same search finds {file}, which was allowed, in the broker's chunks",
        "同じ検索で、搬出許可済みの {file} は中継サーバーのチャンクに見つかります",
    ),
    "slurm": ("What the batch system saw", "バッチシステムに見えたもの"),
    "slurm_ran": (
        "Slurm ran {count} jobs of the site, each to its end",
        "Slurm は拠点の計算 {count} 件をすべて最後まで実行しました",
    ),
    "gateway_title": (
        "sekisho: a site on a gateway, its solver behind ssh and Slurm   ({place})",
        "関所 (sekisho): 中間計算機に置く拠点、ソルバーは ssh と Slurm の先   ({place})",
    ),
    "gateway_way": (
        "The site's agent is on a gateway; the solver's host knows ssh and Slurm, and no sekisho",
        "エージェントは中間計算機に置き、計算ホストへは ssh で届きます。そこに関所は入れません",
    ),
    "gateway_login": (
        "all of that took {logins} login at the computing host",
        "ここまでの計算ホストへのログインは {logins} 回です",
    ),
    "gateway_clean": (
        "no secret in the {files} files of the gateway either: it stays on the computing host",
        "中間計算機の {files} ファイルにも秘匿データはありません。計算ホストから出ていません",
    ),
    "slurm_missing": (
        "not here: {programs}. Debian: apt-get install slurmctld slurmd slurm-client munge",
        "不足: {programs}。Debian では apt-get install slurmctld slurmd slurm-client munge",
    ),
    "sockets": ("Did the site open a port?", "拠点はポートを開いたか"),
    "no_port": (
        "no process of the site listened at any of {looks} looks",
        "拠点のプロセスに待ち受けソケットはありません ({looks} 回調査)",
    ),
    "port_found": (
        "the same look finds the broker's port {port}",
        "同じ調査で、中継サーバーのポート {port} は見つかります",
    ),
    "end": ("The end", "後始末"),
    "stopped": (
        "agent and broker ended by themselves within {seconds:.1f} s of being asked to",
        "エージェントと中継サーバーは {seconds:.1f} 秒で正常に終了しました",
    ),
    "nothing_runs": (
        "no process of the demo is left",
        "デモのプロセスは残っていません",
    ),
    "good": (
        "\nAll {checks} checks held. {seconds:.1f} s.",
        "\n{checks} 項目の確認はすべて成立しました ({seconds:.1f} 秒)。",
    ),
    "bad": (
        "\nThe demo did not hold. {seconds:.1f} s, {checks} checks made.",
        "\n成立しない項目があります ({seconds:.1f} 秒、確認 {checks} 項目)。",
    ),
    "kept": ("everything is kept in {place}", "すべてのファイルを残しました: {place}"),
    "interrupted": ("interrupted", "中断しました"),
}
