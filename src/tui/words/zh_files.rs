//! Chinese: what a file or folder is that is no model for this program, and what to do.

use crate::session::catalog::{
    FileKind, ForeignFormat, QuantMethod, SpecialFile, TrainingFormat, UnfinishedSign,
};
use std::path::PathBuf;

const AGAIN: &str = "请重新下载";
const ORIGINAL: &str = "请转换原始检查点（safetensors 或 pytorch_model.bin）：\
                        huozi-convert 文件夹 -t q4_k_m -o 输出.gguf";
const NEEDED: &str = "这里需要 GGUF 文件；huozi-convert 还接受检查点的文件夹";

/// What a file or folder is, why it cannot be used, and what to do; without its path.
pub(super) fn of_diagnosis(kind: &FileKind) -> String {
    let (what, remedy) = said(kind);
    format!("{what}；{remedy}")
}

/// As [`FileKind`] says it in English.
fn said(kind: &FileKind) -> (String, String) {
    match kind {
        FileKind::Pointer { system, bytes } => {
            let long = bytes.map_or(String::new(), |bytes| format!("（{}）", size(bytes)));
            let remedy = match *system {
                "Git LFS" => "请在其文件夹中运行 git lfs pull，或重新下载",
                "git-annex" => "请在其文件夹中运行 git annex get .，或重新下载",
                _ => "请用 hf download 重新下载",
            };
            (format!("只是 {system} 的指针，文件本身还没有下载{long}"), remedy.into())
        }
        FileKind::WebPage { title } => {
            let title = title.as_ref().map_or(String::new(), |title| format!("“{title}”"));
            let remedy = format!(
                "{AGAIN}：模型页面上文件本身的链接含 /resolve/ 而不是 /blob/；受限模型需先登录（hf auth login）"
            );
            (format!("是网页{title}，不是文件本身"), remedy)
        }
        FileKind::ServerError { said } => (
            format!("是服务器的错误消息，不是文件本身：“{said}”"),
            format!("请检查模型和文件的名称，受限模型需先登录（hf auth login），然后{AGAIN}"),
        ),
        FileKind::Compressed { format, unpack } => {
            (format!("是压缩文件（{format}）"), format!("请先解压：{unpack}"))
        }
        FileKind::Empty => ("是空文件".into(), AGAIN.into()),
        FileKind::Zeros { bytes } => {
            (format!("{}，全为零：下载时预留了空间，但没有完成", size(*bytes)), AGAIN.into())
        }
        FileKind::Truncated { missing } => {
            let what = missing.map_or("末尾".to_owned(), |missing| format!("末尾 {}", size(missing)));
            (format!("文件不完整，缺少{what}"), AGAIN.into())
        }
        FileKind::Unfinished { by } => {
            let by = match by {
                UnfinishedSign::Ending(end) => format!("文件名以 .{end} 结尾"),
                UnfinishedSign::Beside(name) => format!("旁边有 {name}"),
                UnfinishedSign::Inside(name) => format!("文件夹中有 {name}"),
            };
            (format!("下载没有完成（{by}）"), "请等下载完成，或重新下载".into())
        }
        FileKind::Piece { join } => ("是分卷上传的文件的一部分".into(), format!("请先合并：{join}")),
        FileKind::UnfinishedConversion => {
            ("是 huozi-convert 尚未完成的输出".into(), "重新运行原来的命令即可续传".into())
        }
        FileKind::DanglingLink { link, model } => {
            let remedy = match model {
                Some(model) => format!("可用 hf download {model} 续传"),
                None => AGAIN.into(),
            };
            (format!("{link} 指向的文件不存在：下载没有完成"), remedy)
        }
        FileKind::Special(special) => {
            let what = match special {
                SpecialFile::Fifo => "命名管道",
                SpecialFile::Device => "设备",
                SpecialFile::Socket => "套接字",
            };
            (format!("是{what}，不是普通文件"), "请先存成文件，再给出其路径".into())
        }
        FileKind::OldTorch => (
            "是 PyTorch 1.6 以前 torch.save 的格式，无法读取".into(),
            "如果信任此文件，请用较新的 PyTorch 载入（torch.load）后重新保存（torch.save）".into(),
        ),
        FileKind::Pickle => {
            ("是普通的 pickle 文件，不是检查点".into(), "请用 save_pretrained 保存模型".into())
        }
        FileKind::TorchScript => (
            "是 TorchScript 程序，不是检查点".into(),
            "请使用导出它的检查点（含 config.json 和 tokenizer.json）".into(),
        ),
        FileKind::Ggml { format } => {
            (format!("是 {format} 格式，2023 年起已由 GGUF 取代，缺少完整的模型和分词信息"), ORIGINAL.into())
        }
        FileKind::Ggla => (
            "是旧 GGLA 格式的 LoRA 适配器".into(),
            "请用 PEFT 把原始适配器合并到模型中（merge_and_unload），再转换".into(),
        ),
        FileKind::GgufVersion { version } => {
            let remedy = if *version < 2 {
                ORIGINAL
            } else {
                "较新的 huozi 也许能读取；也可转换原始检查点"
            };
            (format!("不支持这个版本的 GGUF：{version}（支持 2 和 3）"), remedy.into())
        }
        FileKind::BigEndian => (
            "是大端字节序的 GGUF 文件".into(),
            "可用 gguf-convert-endian（pip install gguf）转换为小端".into(),
        ),
        FileKind::OtherFormat { what } => (foreign(*what).into(), NEEDED.into()),
        FileKind::Unknown { start } => (format!("不是 GGUF 模型文件：开头是 \"{start}\""), NEEDED.into()),
        FileKind::Checkpoint { convert } => {
            ("是检查点，不是 GGUF 文件".into(), format!("请先转换：{convert}"))
        }
        FileKind::Part { convert: Some(convert), .. } => {
            ("是检查点中的一个文件".into(), format!("请转换整个文件夹：{convert}"))
        }
        FileKind::Part { folder, .. } => (
            "是检查点中的一个文件".into(),
            format!(
                "huozi-convert 需要完整的文件夹（权重、config.json、tokenizer.json），而 {} 不完整",
                folder.display()
            ),
        ),
        FileKind::Adapter { base, .. } => {
            let of = base.as_ref().map_or(String::new(), |base| format!("（基础模型 {base}）"));
            (
                format!("是 LoRA 适配器{of}，只含对模型的改动，不是模型本身"),
                "请先用 PEFT 合并（PeftModel.from_pretrained(…).merge_and_unload().save_pretrained(…)），再转换".into(),
            )
        }
        FileKind::Unmerged { tensor } => (
            format!("检查点中的 LoRA 适配器尚未合并（张量 {tensor}）"),
            "请先用 PEFT 合并（merge_and_unload）并保存，再转换".into(),
        ),
        FileKind::Ungathered { tensor, shape } => (
            format!("张量 {tensor} 的形状是 {shape:?}：检查点在 DeepSpeed ZeRO-3 下保存时没有收集权重"),
            "请在训练目录用 python zero_to_fp32.py 文件夹 输出 收集权重，或训练时设置 \
             stage3_gather_16bit_weights_on_model_save: true"
                .into(),
        ),
        FileKind::Training(format) => {
            let (name, remedy) = match format {
                TrainingFormat::DeepSpeed => {
                    ("DeepSpeed", "请用 python zero_to_fp32.py 文件夹 输出 收集权重")
                }
                TrainingFormat::Megatron => (
                    "Megatron",
                    "请先转换为 Hugging Face 格式（transformers 的 convert_bloom_original_checkpoint_to_pytorch.py）",
                ),
                TrainingFormat::Fsdp => {
                    ("PyTorch FSDP", "请用 accelerate merge-weights 文件夹 输出 收集权重")
                }
            };
            (format!("是 {name} 的训练检查点，权重分散在多个进程的文件中"), format!("{remedy}，再转换"))
        }
        FileKind::Quantised { method } => (
            format!("权重已由 {} 量化，无法再转换", quantiser(method)),
            "请转换原始检查点（F32、F16 或 BF16）：huozi-convert 会自行量化，例如 -t q4_k_m".into(),
        ),
        FileKind::OtherModel { model } => (
            format!("模型类型是 \"{model}\"；huozi 只运行 bloom 类型的模型"),
            "其他模型可用 llama.cpp（convert_hf_to_gguf.py）".into(),
        ),
        FileKind::OtherFramework { framework, file } => (
            format!("只有 {framework} 的权重（{file}）"),
            "请使用 PyTorch 或 safetensors 的检查点，或用 transformers 载入后重新保存".into(),
        ),
        FileKind::OddNames { files, rename } => {
            let remedy = match rename {
                Some(name) => format!("请改名为 {name}"),
                None => "请按 transformers 的方式命名，例如 model-00001-of-00002.safetensors".into(),
            };
            (format!("没有标准命名的权重文件，只有 {}", some(files)), remedy)
        }
        FileKind::GgufFiles { files } => (
            format!("是含 {} 个 GGUF 文件的文件夹", files.len()),
            format!("请给出其中一个的路径：{}", paths(files)),
        ),
        FileKind::Below { folders } => {
            ("文件夹中没有权重".into(), format!("请给出含权重的文件夹：{}", paths(folders)))
        }
        FileKind::Cache { names } => {
            ("是 Hugging Face 缓存的文件夹".into(), format!("请给出其中一个模型的名称：{}", some(names)))
        }
        FileKind::NoWeights { files } => {
            let what = match files.is_empty() {
                true => "是空文件夹".to_owned(),
                false => format!("文件夹中没有权重，只有 {}", some(files)),
            };
            let remedy = "检查点应有 config.json、tokenizer.json，以及 model.safetensors 或 pytorch_model.bin（可分片）";
            (what, remedy.into())
        }
    }
}

/// What a file of another purpose is.
fn foreign(format: ForeignFormat) -> &'static str {
    match format {
        ForeignFormat::LlamaSession => "是 llama.cpp 保存的会话，不是模型",
        ForeignFormat::NumpyArchive => "是 NumPy 数组的归档（.npz），不是模型",
        ForeignFormat::NumpyArray => "是 NumPy 数组，不是模型",
        ForeignFormat::ProgramOrLlamafile => "是可执行程序（llamafile 中的模型是其 zip 成员），不是模型文件",
        ForeignFormat::Program => "是可执行程序，不是模型文件",
        ForeignFormat::Pdf => "是 PDF 文档，不是模型",
        ForeignFormat::Picture => "是图片，不是模型",
        ForeignFormat::Database => "是数据库，不是模型",
        ForeignFormat::Sentencepiece => "是 sentencepiece 分词器，BLOOM 不使用",
        ForeignFormat::GgufUnderOtherName => "是 GGUF 文件，但名称不是 .gguf",
        ForeignFormat::JsonAsWeights => "名称是权重文件，内容却是 JSON",
        ForeignFormat::Json => "是 JSON 文本，不是模型",
    }
}

fn quantiser(method: &QuantMethod) -> &str {
    match method {
        QuantMethod::Named(name) => name,
        QuantMethod::GptqOrAwq => "GPTQ 或 AWQ",
        QuantMethod::Fp8OrInt8 => "FP8 或 INT8",
    }
}

/// A number of bytes: exact, and rounded where there are many, as the English texts have it.
fn size(bytes: u64) -> String {
    const UNITS: [(f64, &str); 3] = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match UNITS.iter().find(|(unit, _)| bytes as f64 >= 10.0 * unit) {
        Some((unit, name)) => format!("{bytes} 字节，约 {:.1} {name}", bytes as f64 / unit),
        None => format!("{bytes} 字节"),
    }
}

fn some(names: &[String]) -> String {
    const MOST: usize = 4;
    let list = names[..names.len().min(MOST)].join("、");
    if names.len() > MOST { format!("{list} 等 {} 个", names.len()) } else { list }
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join("、")
}
