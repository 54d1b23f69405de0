"""Function words of English and of Chinese: what a sentence is built with, rather than about.

Words that turn a sentence's meaning over (not, no, never, neither, without; 不, 没, 没有) are not among them: a
verdict without its negation is another verdict. Nor are words that can be the verdict (like, against; 对, which is also
"right"): of "i like it", nothing would be left.
"""

_ENGLISH = """
a an the this that these those some any each every either both all such what whatever which whichever
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves one oneself who whom whose whoever
am is are was were be been being do does did doing done have has had having
can could may might must shall should will would ought
i'm you're he's she's it's we're they're i've you've we've they've i'd you'd he'd she'd we'd they'd
i'll you'll he'll she'll we'll they'll that's there's here's what's who's let's
about above across after along among around as at before behind below beneath beside besides between
beyond by despite down during except for from in inside into near of off on onto out outside over past
per since through throughout till to toward towards under until up upon via with within
and or so yet because although though while whereas if unless whether than then else when whenever where wherever
why how there here also too very just only even still again once ever already rather quite
"""

_CHINESE = """
的 地 得 之 了 着 过 们 所 者
我 你 您 他 她 它 我们 你们 您们 他们 她们 它们 咱们 自己 大家 别人
这 那 此 该 这个 那个 这些 那些 这里 那里 这儿 那儿 这样 那样 这么 那么 哪 哪个 哪些 哪里 哪儿
谁 什么 怎么 怎样 怎么样 为什么 几 多少
是 有 在 于 从 自 由 向 往 朝 到 当 对于 关于 至于 根据 按照 按 通过 为 为了 把 被 将 给 让 使 跟 同 与 和 及
以及 以 因 因为 由于 所以 因此 因而 而 而且 并 并且 或 或者 还是 但 但是 可是 不过 然而 虽然 尽管 如果 假如 要是 只要
只有 除了 除非 即使 无论 不管 既 既然 于是 然后 那么 否则
也 都 又 再 还 就 才 只 很 更 最 太 已 已经 曾 曾经 正在 刚刚 一直 便
吗 呢 吧 啊 呀 嘛 哦 啦 哪怕
一个 一些 一下 一样 某 某些 各 各个 每 每个 其 其中 其他 其它 之一 之前 之后 等 等等
"""

LISTS = {"english": frozenset(_ENGLISH.split()), "chinese": frozenset(_CHINESE.split())}
