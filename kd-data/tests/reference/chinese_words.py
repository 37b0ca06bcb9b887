"""Words of jieba's cut, to compare kd_data::tokenize::Tokenizer::Chinese with.

    pip install jieba
    python kd-data/tests/reference/chinese_words.py > kd-data/tests/reference/chinese_words.json
"""

import json
import sys

import jieba

jieba.setLogLevel(60)
TEXTS = [
    "",
    "我爱北京天安门，天安门上太阳升。",
    "这家酒店的服务员态度很好，房间也干净。",
    "小明硕士毕业于中国科学院计算所，后在日本京都大学深造",
    "他来到了网易杭研大厦",
    "花呗怎么还款，可以分期吗？",
    "2018年的iPhone X价格是8388元",
    "工信处女干事每月经过下属科室都要亲口交代24口交换机等技术性器件的安装工作",
    "如何 关闭 自动续费",
    "电影《流浪地球》票房破40亿！！！",
    "永和服装饰品有限公司",
    "hello world 你好世界",
    "ＡＢＣ全角１２３",
]
cases = [{"text": text, "words": list(jieba.cut(text))} for text in TEXTS]
json.dump({"jieba": jieba.__version__, "cases": cases}, sys.stdout, ensure_ascii=False, indent=1)
print()
